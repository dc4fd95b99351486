#!/usr/bin/env bash
# Rows belong to the code that computed them. In a copy of the built tree: a comment edited in a method recomputes
# nothing, nor does a method that is added or removed; code edited in it recomputes that method alone and shows the new
# rows under its label; times that are stored stay unless --again asks for more.
. "$(dirname "$0")/lib.sh"
build=${BUILD:-build}
tree=$scratch/tree
mkdir -p "$tree"
cp -a Makefile base configs datasets driver kernels methods model models plots properties results tests tools training "$build" "$tree" 2>/dev/null
rm -f "$tree"/results/*.db*
cd "$tree" || exit 1
cuda=NVCC=; [ -z "$(ls "$build"/kernels/cuda/*.o 2>/dev/null)" ] || cuda=
rebuild() { make -s $cuda BUILD="$build" "$build/harness" >"$scratch/make" 2>&1 || { tail -5 "$scratch/make"; fail "make"; exit 1; }; }
cat >run.json <<'CONFIG'
{"name": "identity", "model": "models/tiny", "data": "datasets/sample", "results": "results/identity.db", "plots": "",
 "limit": 1, "tasks": ["passage_retrieval_en"], "max_new_tokens": 32, "device": "cpu",
 "methods": {"exact": {}, "window": {"k": 32}}, "sampler": {"schedule": "fixed", "steps": 2},
 "passes": ["quality", "latency"],
 "latency": {"contexts": [256], "batches": [1], "steps": [2], "blocks_min": 2, "blocks_max": 2, "seconds": 1}}
CONFIG
run() { "$build/harness" --config run.json "$@" >"$scratch/out" 2>"$scratch/err" || { tail -3 "$scratch/err"; fail "run $*"; }; }
q() { sqlite3 -readonly results/identity.db "$1"; }

rebuild
run
[ "$(q "SELECT count(*) FROM v_samples WHERE pass = 'quality'")" = 2 ] || fail "two samples were to be stored"
times=$(q "SELECT count(*) FROM latency")
run
grep -q '^reused  *[1-9][0-9]* stored rows of build .*; 0 samples computed now' "$scratch/out" || { fail "a finished run does not say that it reused its rows"; tail -4 "$scratch/out"; }
[ "$(q "SELECT count(*) FROM latency")" = "$times" ] || fail "a finished run was timed again"
before=$(q "SELECT group_concat(cell_id) FROM v_samples")

sed -i '2s/$/ edited/' methods/window.c
rebuild
run
[ "$(q "SELECT group_concat(cell_id) FROM v_samples")" = "$before" ] || fail "an edited comment recomputed rows"

sed 's/"example"/"added"/' methods/examples/example.c >methods/added.c
rebuild
"$build/harness" list methods | grep -q '^added ' || fail "the added method is not listed"
run
[ "$(q "SELECT group_concat(cell_id) FROM v_samples")" = "$before" ] || fail "a method that was added recomputed the rows of others"
rm methods/added.c
rebuild
run
[ "$(q "SELECT group_concat(cell_id) FROM v_samples")" = "$before" ] || fail "a method that was removed recomputed the rows of others"

printf 'int mb_edited_window(int x);\nint mb_edited_window(int x)\n{\n    return x * 3 + 1;\n}\n' >>methods/window.c
rebuild
run
[ "$(q "SELECT count(*) FROM v_samples WHERE pass = 'quality'")" = 2 ] || fail "two builds stand under one label"
[ "$(q "SELECT count(*) FROM v_samples_all WHERE pass = 'quality'")" = 3 ] || fail "the edited method was not computed anew, or another one was: $(q "SELECT config, build FROM v_samples_all")"
[ "$(q "SELECT count(*) FROM v_samples_all WHERE NOT is_current AND method = 'window'")" = 1 ] || fail "the old row is gone"

times=$(q "SELECT count(*) FROM latency")
run --again latency
[ "$(q "SELECT count(*) FROM latency")" -gt "$times" ] || fail "--again latency measured nothing"
[ "$(q "SELECT count(DISTINCT session_id) FROM v_latency_all WHERE method = 'exact'")" -ge 2 ] || fail "measurements overwrite each other"
expect_exit 2 '--again takes the pass' "$build/harness" --config run.json --again quality
exit $((failures > 0))
