#!/usr/bin/env bash
# Plans: memory is planned for the options that are asked for; --dry-run lists every pass with its time and memory
# before a checkpoint is there; what cannot fit is refused before weights are drawn or loaded.
. "$(dirname "$0")/lib.sh"
query() { sqlite3 -readonly "$1" "$2"; }
printf 'alpha beta\n' >"$scratch/prompt"

# generate plans for the k that --set gives, not for the default one.
for method in mage losa; do
    expect_exit 0 '' ./harness generate --model models/tiny --prompt "$scratch/prompt" --method $method --set k=1000000 \
        --max-new-tokens 8
done

# A plan lists every pass with its time and memory. Random weights stand for a checkpoint that is not there yet.
cat >"$scratch/plan.json" <<'JSON'
{"name": "plan", "device": "cpu", "model": {"shape": "tiny", "weights": "random"},
 "tasks": [{"task": "niah_multikey", "lengths": [512], "depths": [0, 100], "samples": 1}],
 "methods": {"exact": {}, "window": {"k": 64}}, "sampler": {"schedule": "fixed", "steps": 4},
 "passes": ["quality", "recall", "latency"], "latency": {"contexts": [256, 1024], "batches": [1, 2], "steps": [4]}}
JSON
expect_exit 0 '' ./harness --config "$scratch/plan.json" --dry-run --db "$scratch/plan.db" --out ""
for line in '^quality +4 decodes, about [0-9]+ s' '^recall +2 decodes' '^memory .*weights .*KV .*index .*scratch .* free' \
    '^latency +256 tokens, batch 1, 4 steps' '^latency +1024 tokens, batch 2, 4 steps' '^time .*estimate .*assumed'; do
    grep -qE "$line" "$scratch/out" || { fail "the plan has no line like /$line/"; cat "$scratch/out"; }
done
[ ! -e "$scratch/plan.db" ] || fail "a plan made a database"
expect_exit 2 'only the passes latency and breakdown' ./harness --config "$scratch/plan.json" --db "$scratch/plan.db" --out ""

# What no machine can hold is refused at once, by the plan and by the run, before a weight is drawn.
cat >"$scratch/large.json" <<'JSON'
{"name": "large", "device": "cpu", "model": {"shape": "fast_dllm_v2_7b", "weights": "random", "positions": 1048576},
 "methods": {"exact": {}}, "passes": ["latency"],
 "latency": {"contexts": [1000000], "batches": [1024], "steps": [4]}}
JSON
for flag in --dry-run --quiet; do
    expect_exit 2 'cannot fit cpu: it takes .*weights .*KV .*free' timeout 20 ./harness --config "$scratch/large.json" $flag \
        --db "$scratch/large.db" --out ""
done
exit $((failures > 0))
