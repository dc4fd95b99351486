#!/usr/bin/env bash
# A sampler that edits (LLaDA2.1's rule) stores for every item how many written tokens were replaced; one that does not
# edit stores no such counter.
. "$(dirname "$0")/lib.sh"
mkdir "$scratch/model"
cp tests/model/fixtures/engine/llada2/* "$scratch/model/"
cp tests/model/fixtures/bpe/tokenizer.json "$scratch/model/"
echo "{% for m in messages %}{{ '(' + m.content + ')' }}{% endfor %}" >"$scratch/model/chat_template.jinja"
for threshold in 0 2; do
    expect_exit 0 '' ./harness --config tests/driver/configs/small.json --model "$scratch/model" --methods exact --quiet --out "" \
        --db "$scratch/$threshold.db" --set 'passes=["quality"]' --set 'tasks=[{"task":"niah_single","lengths":[256],"depths":[50],"samples":2}]' \
        --set max_new_tokens=32 --set threads=1 --set "sampler={\"schedule\":\"threshold\",\"threshold\":0.0001,\"editing_threshold\":$threshold}"
done
query() { sqlite3 -readonly "$scratch/$1.db" "$2"; }
counters='SELECT count(*), min(value) > 0 FROM counter_value JOIN counter ON counter.id = counter_id WHERE name = '"'edited_tokens'"
[ "$(query 0 "$counters")" = "2|1" ] || fail "two items, but edits counted: $(query 0 "$counters")"
[ "$(query 0 "SELECT n, unit FROM v_counters WHERE name = 'edited_tokens'")" = "2|tokens" ] || fail "the view has no edits"
[ "$(query 2 "SELECT count(*) FROM counter_value")" = 0 ] || fail "edits of a sampler that does not edit"
exit $((failures > 0))
