#!/usr/bin/env bash
# Planned work that did not happen is never exit code 0: an empty file, two samples of one key, a pass without a case.
. "$(dirname "$0")/lib.sh"
run=(./harness --config tests/driver/configs/small.json --out "" --methods exact --quiet --set 'passes=["quality"]')
q() { sqlite3 -readonly "$scratch/$1.db" "$2"; }
mkdir "$scratch/empty" "$scratch/twice"
: >"$scratch/empty/hotpotqa.jsonl"
expect_exit 3 '1 samples failed' "${run[@]}" --db "$scratch/empty.db" --tasks hotpotqa --data "$scratch/empty"
[ "$(q empty "SELECT count(*) FROM v_failures WHERE reason LIKE '%gave no samples%'")" = 1 ] || fail "an empty file leaves no failure"

head -1 datasets/sample/data/hotpotqa.jsonl >"$scratch/twice/hotpotqa.jsonl"
head -1 datasets/sample/data/hotpotqa.jsonl >>"$scratch/twice/hotpotqa.jsonl"
for start in 1 2; do
    expect_exit 3 '1 samples failed' "${run[@]}" --db "$scratch/twice.db" --tasks hotpotqa --data "$scratch/twice" --set max_new_tokens=16
    [ "$(q twice "SELECT group_concat(status) FROM (SELECT status FROM v_samples ORDER BY item_id)")" = ok,failed ] ||
        fail "start $start: rows with one _id are not a result and a failure"
done
expect_exit 3 '1 samples failed' "${run[@]}" --db "$scratch/depths.db" \
    --set 'tasks=[{"task": "niah_single", "lengths": [512], "depths": [50, 50.0000001], "samples": 1, "max_new_tokens": 16}]'
[ "$(q depths "SELECT count(*) FROM v_samples WHERE error LIKE '%needs its own%'")" = 1 ] || fail "a depth that prints like another is lost"

expect_exit 2 'latency.batches' "${run[@]}" --db "$scratch/none.db" --set 'passes=["latency"]' --set 'latency={"batches": []}'
exit $((failures > 0))
