#!/usr/bin/env bash
# Everything that is checked on a GPU, in one call: kernel parity, method properties, graphs, whole-model parity of
# the CPU and the GPU, the sanitizer. Binaries are built elsewhere or here; a missing one is a failed check:
#
#   make -j all plugin-example build/tests/cuda/attention_bench build/tests/kernels/test_cuda \
#       build/tests/methods/test_properties build/tests/methods/test_counters build/tests/model/test_moe \
#       build/tests/model/test_graphs build/tests/training/test_gradients build/tests/training/test_training \
#       build/tests/training/test_operations
#   tests/gpu.sh [BUILD]       BUILD: the build folder (default: build); prints one line a check, exit 1 on failure
#
# ONLY="NAME ..." runs just these checks. SANITIZE=1 adds compute-sanitizer (slow; MASKBENCH_TEST_OPERATIONS="votes ..."
# holds it to some operations). Libraries that this machine lacks may lie in .gpu/libs.tar.xz, programs (sqlite3) in
# .gpu/bin.
set -u
cd "$(dirname "$0")/.."
build=${1:-build}
out=${OUT:-$(mktemp -d)}
if [ -f .gpu/libs.tar.xz ]; then
    mkdir -p /tmp/libs && tar -xJf .gpu/libs.tar.xz -C /tmp/libs
    export LD_LIBRARY_PATH=/tmp/libs:${LD_LIBRARY_PATH:-} PATH=$PATH:$PWD/.gpu/bin
fi
failed=0
check() { # NAME COMMAND...
    local name=$1 rc=0 start; shift
    case " ${ONLY:-$name} " in *" $name "*) ;; *) return ;; esac
    start=$(date +%s%N)
    "$@" >"$out/$name.log" 2>&1 || rc=$?
    printf '%-24s %s  %d ms\n' "$name" "$([ $rc = 0 ] && echo ok || echo "FAILED ($rc)")" $((($(date +%s%N) - start) / 1000000))
    [ $rc = 0 ] || { failed=1; grep -aE 'FAILED|failed|harness:|ERROR|error|differ' "$out/$name.log" | head -${LINES_SHOWN:-25}; }
}
nvidia-smi --query-gpu=name,driver_version,clocks.sm,temperature.gpu --format=csv,noheader

# First what proves a changed kernel, a changed launcher or a changed graph.
check parity "$build/tests/kernels/test_cuda"
check properties env MASKBENCH_TEST_DEVICE=cuda "$build/tests/methods/test_properties"
check attention "$build/tests/cuda/attention_bench" check

# The paths that an sm_80 and PTX builds take, on this GPU.
check parity_generic env MB_FORCE_GENERIC=1 "$build/tests/kernels/test_cuda"
check properties_generic env MB_FORCE_GENERIC=1 MASKBENCH_TEST_DEVICE=cuda "$build/tests/methods/test_properties"

# A small run with and without graphs: every prediction, score and count is the same.
small() { ./harness --config tests/driver/configs/small.json --quiet --out "" --db "$out/$1.db" --device "$1" --fresh; }
check run_cuda small cuda
eager() { ./harness --config tests/driver/configs/small.json --quiet --out "" --db "$out/eager.db" --device cuda --fresh --set model.graphs=false; }
check run_eager eager
graphs() {
    for db in cuda eager; do ./harness export "$out/$db.db" --csv | cut -d, -f1-12 | sort >"$out/$db.txt" || return 1; done
    python3 - "$out" <<'PY'
import csv, subprocess, sys
def rows(db):
    text = subprocess.run(["./harness", "export", f"{sys.argv[1]}/{db}.db", "--csv"], capture_output=True, text=True, check=True).stdout
    return {(r["config"], r["task"], r["item"], r["pass"]): (r["prediction"], r["score"], r["work"], r["engaged"]) for r in csv.DictReader(text.splitlines())}
a, b = rows("cuda"), rows("eager")
bad = [k for k in a if a[k] != b.get(k)]
print(len(a), "rows,", len(bad), "differ between graph and eager", bad[:3])
sys.exit(bool(bad) or len(a) != len(b))
PY
}
check graph_equals_eager graphs
check graph_branches env MASKBENCH_TEST_DEVICE=cuda "$build/tests/model/test_graphs"

# The sparse kernel's ring of tiles in shared memory.
check racecheck_sparse env MASKBENCH_TEST_OPERATIONS=attend_sparse \
    compute-sanitizer --tool racecheck --error-exitcode 9 "$build/tests/kernels/test_cuda"

check moe env MASKBENCH_TEST_DEVICE=cuda "$build/tests/model/test_moe"
check counters env MASKBENCH_TEST_DEVICE=cuda "$build/tests/methods/test_counters"

# The same run on the CPU: equal scores, and predictions equal but for near-ties.
check run_cpu small cpu
same() {
    for device in cpu cuda; do
        ./harness export "$out/$device.db" --csv >"$out/$device.csv" || return 1
    done
    python3 - "$out/cpu.csv" "$out/cuda.csv" <<'PY'
import csv, sys
a, b = ({(r["config"], r["task"], r["item"], r["pass"]): r for r in csv.DictReader(open(p))} for p in sys.argv[1:])
assert a.keys() == b.keys(), "other rows"
scores = sum(a[k]["score"] != b[k]["score"] for k in a)
texts = sum(a[k]["prediction"] != b[k]["prediction"] for k in a)
print(f"{len(a)} rows, {texts} predictions differ, {scores} scores differ")
sys.exit(scores > len(a) * 0.02 or texts > len(a) * 0.05)
PY
}
check same_results same

# Training: each operation against the CPU's, gradients against differences of the loss, trainings as a whole, the
# losses of the CPU.
check training_operations env MASKBENCH_TEST_DEVICE=cuda "$build/tests/training/test_operations"
check training_reduced env MASKBENCH_TEST_DEVICE=cuda MASKBENCH_TEST_REDUCED=1 "$build/tests/training/test_operations"
check gradients env MASKBENCH_TEST_DEVICE=cuda "$build/tests/training/test_gradients"
check trainings env MASKBENCH_TEST_DEVICE=cuda "$build/tests/training/test_training"
trained() { # NAME KEY=VALUE...: ten steps of the embedded model's shape
    local name=$1; shift
    ./harness train --quiet --config configs/train_tiny.json --set steps=10 --set warmup=200 --set lengths=[128,256] --set tails=[128,64] \
        --set tokens=320 --set out="$out/$name" --set results="$out/$name.db" "${@/#/--set=}"
}
train_same() {
    trained train_cpu && trained train_cuda device=cuda && trained train_again device=cuda && trained train_mixed device=cuda products=mixed || return 1
    cmp "$out/train_cuda/model.safetensors" "$out/train_again/model.safetensors" || return 1
    python3 - "$out" <<'PY'
import sqlite3, sys
a, b, c = ([r[0] for r in sqlite3.connect(f"{sys.argv[1]}/train_{n}.db").execute("SELECT loss FROM v_training ORDER BY step")] for n in ("cpu", "cuda", "mixed"))
worst, mixed = max(abs(x - y) for x, y in zip(a, b)), max(abs(x - y) for x, y in zip(a, c))
print(f"{len(a)} steps, largest difference of the losses {worst:.2e}, mixed {mixed:.2e}")
sys.exit(len(a) != 10 or len(b) != 10 or len(c) != 10 or worst > 1e-4 or mixed > 2e-2)
PY
}
check train_same train_same

# Every method of the tree at equal work; the table of docs/methods.md is read from this database.
check methods_all ./harness --config configs/methods_all.json --quiet --out "" --db "$out/methods_all.db" --device cuda --fresh

# Plug-ins that break, on the device; then sound ones beside a latency pass, which leaves room for one worker at a time.
check isolation env MASKBENCH_TEST_DEVICE=cuda BUILD="$build" bash tests/isolation/check_isolation.sh
crowded() {
    ./harness --config tests/isolation/run.json --device cuda --quiet --out "" --db "$out/crowded.db" --fresh \
        --plugin "$build/plugins/example.so" --methods exact,example --set 'methods.example={"k": [32, 64, 100000]}' \
        --set 'passes=["quality","recall","latency"]' \
        --set 'latency={"contexts": [256], "steps": [4], "blocks_max": 2, "seconds": 0.1}' || return 1
    [ "$(sqlite3 "$out/crowded.db" "SELECT count(*) FROM v_samples WHERE status = 'ok'")" = 14 ] &&
        [ "$(sqlite3 "$out/crowded.db" "SELECT count(DISTINCT config) FROM v_latency")" = 4 ]
}
check crowded crowded

if [ "${SANITIZE:-0}" = 1 ]; then
    for tool in memcheck racecheck initcheck synccheck; do
        check "sanitizer_$tool" compute-sanitizer --tool $tool --error-exitcode 9 "$build/tests/kernels/test_cuda"
    done
fi
exit $failed
