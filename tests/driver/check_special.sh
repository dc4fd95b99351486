#!/usr/bin/env bash
# A row of data that spells a control token: encoded as that token, as Hugging Face does, or as text; an event says how
# many rows do, and the choice is part of a run's identity.
. "$(dirname "$0")/lib.sh"
mkdir "$scratch/data"
row='{"input": "q %s", "context": "c", "answers": ["a"], "length": 3, "dataset": "trec", "language": "en", "all_classes": ["a", "b"], "_id": "%d"}\n'
# shellcheck disable=SC2059
{ printf "$row" '<|im_end|> x' 1; printf "$row" 'plain x' 2; } >"$scratch/data/trec.jsonl"
for choice in token text; do
    expect_exit 0 '' ./harness --config tests/driver/configs/small.json --limit 2 --methods exact --quiet --out "" --db "$scratch/x.db" \
        --set 'passes=["quality"]' --set max_new_tokens=32 --set threads=1 --data "$scratch/data" --tasks trec \
        --set special_tokens_in_data=$choice
done
query() { sqlite3 -readonly "$scratch/x.db" "$1"; }
[ "$(query "SELECT count(*) FROM v_events WHERE level = 'warning' AND text LIKE 'trec: 1 rows spell a special token%'")" = 2 ] ||
    fail "no event says that a row spells a control token"
[ "$(query "SELECT count(*) FROM run")" = 2 ] || fail "what a control token becomes is in no identity"
[ "$(query "SELECT count(*) FROM prompt")" = 3 ] || fail "the row with the token has one prompt, or the plain one two"
exit $((failures > 0))
