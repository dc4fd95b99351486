#!/usr/bin/env bash
# What needs two GPUs of one machine: checks of a split model, then times, one GPU and two in turn.
#
#   make -j all build/tests/model/test_parallel build/tests/model/sum_times
#   tests/gpu_two.sh [BUILD]       BUILD: the build folder (default: build); a line a check, a table a time
#
# ONLY="NAME ..." runs just these parts: ranks split sanitize sums time_7b time_flash workers. A part that fails does not end
# the others; exit 1 if any did. About five minutes. GPUS="0 1" names the two; NCCL must be found (LD_LIBRARY_PATH).
set -u
cd "$(dirname "$0")/.."
build=${1:-build}
harness=${HARNESS:-./harness}
out=${OUT:-$(mktemp -d)}
export NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}
failed=0
part() { # NAME SECONDS FUNCTION
    local rc=0 start
    case " ${ONLY:-$1} " in *" $1 "*) ;; *) return ;; esac
    start=$(date +%s%N)
    timeout -k 5 "$2" bash -c "$3" >"$out/$1.log" 2>&1 || rc=$?
    printf '== %-10s %s  %d ms\n' "$1" "$([ $rc = 0 ] && echo ok || echo "FAILED ($rc)")" $((($(date +%s%N) - start) / 1000000))
    if [ $rc = 0 ]; then tail -${LINES_SHOWN:-30} "$out/$1.log"; else failed=1; tail -15 "$out/$1.log"; fi
}
# A run of the harness: DB, then its arguments.
run() { local db=$1; shift; "$harness" --quiet --fresh --out "" --db "$out/$db.db" "$@" >"$out/$db.txt" 2>&1 || { tail -3 "$out/$db.txt"; return 1; }; }
# Medians of two latency runs side by side.
beside() {
    python3 - "$@" <<'PY'
import sqlite3, sys
def read(path):
    try:
        rows = sqlite3.connect(path).execute("SELECT config, context, batch, phase, median_us, graph FROM v_latency").fetchall()
    except sqlite3.Error:
        return {}
    return {r[:4]: r[4:] for r in rows}
one, two = (read(p) for p in sys.argv[1:3]) if len(sys.argv) > 2 else ({}, read(sys.argv[1]))
for key in sorted(set(one) | set(two), key=lambda k: (k[1], k[2], k[0], k[3])):
    a, b = one.get(key), two.get(key)
    print(f"{key[0]:16} {key[1]:7} x {key[2]:2} {key[3]:11}",
          f"one {a[0] / 1000:9.3f} ms" if a else "", f"two {b[0] / 1000:9.3f} ms" if b else "",
          f"graph {b[1]}" if b else "", f"{a[0] / b[0]:5.2f} x" if a and b else "")
sys.exit(not two)
PY
}
# Rows of two stores: how many predictions and scores differ.
compare() {
    for db in "$1" "$2"; do "$harness" export "$out/$db.db" --csv >"$out/$db.csv" || return 1; done
    python3 - "$out/$1.csv" "$out/$2.csv" "$3" <<'PY'
import csv, sys
a, b = ({(r["config"], r["task"], r["item"], r["pass"]): r for r in csv.DictReader(open(p))} for p in sys.argv[1:3])
assert a and a.keys() == b.keys(), "other rows"
scores = sum(a[k]["score"] != b[k]["score"] for k in a)
texts = sum(a[k]["prediction"] != b[k]["prediction"] for k in a)
print(f"{len(a)} rows, {texts} predictions differ, {scores} scores differ")
share = float(sys.argv[3])
sys.exit(scores > len(a) * share or texts > len(a) * share)
PY
}
export -f run beside compare
export build harness out

part ranks 60 'MASKBENCH_TEST_DEVICE=cuda "$build/tests/model/test_parallel" 2>&1 | grep -E "OK|FAILED|Error|error|differ|rank" '
small='--config tests/driver/configs/small.json'
part split 60 "run split $small --device cuda --set model.parallel=2 && run again $small --device cuda --set model.parallel=2 &&
    run eager $small --device cuda --set model.parallel=2 --set model.graphs=false && run alone $small --device cuda &&
    echo again: && compare split again 0 && echo graph against eager: && compare split eager 0 && echo one GPU: && compare split alone 0.05"
part sums 30 '"$build/tests/model/sum_times" 2'
seven='--config tests/latency/two_gpus_7b.json'
part time_7b 100 "run seven2 $seven --device cuda --set model.parallel=2; run seven1 $seven --device cuda:0; beside \"\$out/seven1.db\" \"\$out/seven2.db\""
part time_flash 150 "run flash2 --config tests/latency/two_gpus_flash.json --device cuda; beside \"\$out/flash2.db\""
many='--config tests/latency/two_gpus_workers.json'
part workers 60 "run warm $many --devices 0 --limit 2; a=\$(date +%s%N); run worker1 $many --devices 0 && b=\$(date +%s%N) && run worker2 $many --devices 0,1 &&
    c=\$(date +%s%N) && compare worker1 worker2 0 && echo one worker \$(((b - a) / 1000000)) ms, two \$(((c - b) / 1000000)) ms"
tiny='--config tests/latency/two_gpus_tiny.json'
part sanitize 90 "for tool in memcheck racecheck; do compute-sanitizer --tool \$tool --error-exitcode 9 \"\$harness\" --quiet --fresh --out '' --db \"\$out/\$tool.db\" $tiny --device cuda >\"\$out/\$tool.txt\" 2>&1; rc=\$?; echo \$tool \$rc; tail -2 \"\$out/\$tool.txt\"; [ \$rc = 0 ] || exit 1; done"
[ $failed = 0 ] && echo "all passed" || echo "FAILED"
exit $failed
