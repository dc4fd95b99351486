#!/usr/bin/env bash
# What the latency pass promises, checked on a GPU: a known time of spinning is reported within 2 %, the same cell
# five times gives medians within 2 %, the audit finds nothing to complain about.
#
#   tests/gpu_latency.sh [PLUGIN]     PLUGIN: tests/cuda/spin_method.cu as a .so (default: built here with nvcc)
#
# Needs ./harness with CUDA, python3, and nvcc without PLUGIN. Exit 1 on failure.
set -u
cd "$(dirname "$0")/.."
out=${OUT:-$(mktemp -d)}/latency; mkdir -p "$out"
if [ -f .gpu/libs.tar.xz ]; then
    mkdir -p /tmp/libs && tar -xJf .gpu/libs.tar.xz -C /tmp/libs
    export LD_LIBRARY_PATH=/tmp/libs:${LD_LIBRARY_PATH:-}
fi
plugin=${1:-/tmp/spin_method.so}
[ -f "$plugin" ] || nvcc -O2 -std=c++17 -arch=native -Xcompiler -fPIC -shared -I. -o "$plugin" tests/cuda/spin_method.cu || exit 1
failed=0
run() { ./harness --config "$1" --device cuda --quiet --fresh --out "" --db "$2" "${@:3}" >"$2.log" 2>&1 || { failed=1; tail -5 "$2.log"; }; }

echo "== a known time"
run tests/latency/spin.json "$out/spin.db" --plugin "$plugin"
python3 tests/latency/steps.py "$out/spin.db" added spin 0.02 || failed=1

echo "== the same cell five times"
for i in 1 2 3 4 5; do run tests/latency/repeat.json "$out/repeat$i.db"; done
python3 tests/latency/steps.py "$out"/repeat?.db repeat 0.02 || failed=1

echo "== audit"
run configs/latency_quick.json "$out/audit.db" --audit --set 'passes=["latency"]' --set latency.contexts=16384 \
    --set latency.batches=1 --set latency.steps=8
python3 - "$out/audit.db" <<'PY' || failed=1
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
said = [t for (t,) in db.execute("SELECT text FROM v_events WHERE text LIKE 'audit%' OR text LIKE '%audited%'")]
bad = db.execute("SELECT config, reason FROM v_failures WHERE status = 'failed'").fetchall()
print(*said, *bad, sep="\n")
sys.exit(bool(bad) or not any(t.startswith("audit: ") and not t.startswith("audit: 0 ") for t in said))
PY
[ $failed = 0 ] && echo "all passed" || echo "FAILED"
exit $failed
