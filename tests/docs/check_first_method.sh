#!/usr/bin/env bash
# docs/first-method.md, executed in a copy of the tree: every fenced sh block in order. `make demo` runs its config on one
# item here, without installing anything; everything else runs as printed, and the time of every block is told.
. "$(dirname "$0")/../driver/lib.sh"
root=$PWD build=$(cd "${BUILD:-build}" && pwd) tree=$scratch/tree
mkdir -p "$tree/build"
# With times kept, so that only what changes is compiled.
tar cf - --exclude=.git --exclude='results/*.db' Makefile README.md base configs datasets driver kernels methods model models plots \
    properties results tests/tests.mk tools training | tar xf - -C "$tree"
(cd "$build" && tar cf - --exclude=tests --exclude=plugins .) | tar xf - -C "$tree/build"
cuda=NVCC=; ls "$build"/kernels/cuda/*.o >/dev/null 2>&1 && cuda=
cat >"$scratch/commands.sh" <<SH
make() { if [ "\${1:-}" = demo ]; then ./harness --config configs/demo.json --limit 1; else command make -s BUILD=build $cuda "\$@"; fi; }
SH
awk '/^```sh$/ { inside = 1; print "SECONDS=0"; next }
     /^```$/ { if (inside) print "echo \"block took $SECONDS s\""; inside = 0 }
     inside' docs/first-method.md | sed "s/^\(.*--config configs\/demo.json.*\)$/\1 --limit 1/" >>"$scratch/commands.sh"
[ "$(grep -c . "$scratch/commands.sh")" -gt 15 ] || fail "hardly any command was found in docs/first-method.md"
(cd "$tree" && command make -s BUILD=build $cuda all && timeout 900 bash -eu "$scratch/commands.sh") >"$scratch/log" 2>&1 ||
    { fail "a command of docs/first-method.md failed"; tail -20 "$scratch/log"; }
grep '^block took' "$scratch/log"
grep -q 'score_edges(host, call, 1, sink, 8, 2.0f' "$tree/methods/edges.c" || fail "the skeleton has no such call any more"
grep -q 'first and last keys, and the best of the first step' "$scratch/log" || fail "help does not show the new summary"
grep -qE '^edges.*: (passed|ok)|0 failed' "$scratch/log" || fail "the properties of the new method"
grep -qE '^edges k=64 +[0-9.]+ ' "$scratch/log" || fail "no row of edges beside mage"
[ "$(sqlite3 "$tree/results/demo.db" "SELECT count(*) FROM v_samples WHERE method IN ('mage', 'edges')")" = 4 ] ||
    fail "not one sample a budget of mage and edges"
[ "$(sqlite3 "$tree/results/demo.db" "SELECT count(DISTINCT session_id) FROM v_samples s JOIN sample x ON x.id = s.sample_id WHERE method = 'mage'")" = 1 ] ||
    fail "mage was computed again"
grep -q '</html>' "$tree/results/demo.html" || fail "no page"
grep -q 'edges k=8' "$tree/results/demo.html" || fail "the page does not have the method"
[ -s "$tree/results/demo/demo/accuracy_work.png" ] || fail "no picture"
[ -z "$(git -C "$root" status --short methods 2>/dev/null | grep edges)" ] || fail "the source tree was written to"
exit $((failures > 0))
