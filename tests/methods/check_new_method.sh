#!/usr/bin/env bash
# A built-in method is one file. In a copy of the tree: new-method --in-tree writes it and touches no other file, make
# builds it in, it runs beside exact attention; once it is removed, make builds a program without it. The same for a
# copy of example.c, as README says, and for a source file of another folder. Fails where a Makefile does not notice
# the set of files: a removed method then stays listed or ends in an undefined reference.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$root/${BUILD:-build}" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tree=$scratch/tree
mkdir -p "$tree/build"
fail() { echo "FAILED: $*"; exit 1; }

# With times kept, so that only what changes is compiled. Tests and their objects are not needed.
(cd "$root" && tar cf - --exclude=.git --exclude=results/*.db Makefile README.md base configs datasets driver kernels \
    methods model models plots properties results tests/tests.mk tools training) | tar xf - -C "$tree"
(cd "$build" && tar cf - --exclude=tests --exclude=plugins .) | tar xf - -C "$tree/build"
cd "$tree"
sums() { find . -path ./build -prune -o -type f ! -name harness -print0 | sort -z | xargs -0 sha256sum; }
# The build that is copied decides whether CUDA is in it: another answer here would leave half of its objects out.
cuda=NVCC=; ls build/kernels/cuda/*.o >/dev/null 2>&1 && cuda=
build() { make -s BUILD=build $cuda all >"$scratch/log" 2>&1 || { tail -20 "$scratch/log"; fail "$1"; }; }
listed() { ./harness list methods | awk "{print \$1}" | grep -qx "$1"; }

build "the copy does not build"
sums >"$scratch/before"
./harness new-method one_file --in-tree >/dev/null || fail "new-method --in-tree ended with $?"
sums | diff "$scratch/before" - >"$scratch/changes" && fail "new-method wrote nothing"
[ "$(grep -c '^[<>]' "$scratch/changes")" = 1 ] && grep -q '^> .*methods/one_file\.c$' "$scratch/changes" ||
    fail "more than one file changed: $(cat "$scratch/changes")"
build "the tree with one_file does not build"
listed one_file || fail "one_file is not listed"
./harness help one_file | grep -q 'budget\|prefix keys' || fail "help one_file does not show its options"

rm methods/one_file.c
build "make fails after a method was removed"
! listed one_file || fail "a removed method is still listed"

cp methods/examples/example.c methods/copied.c   # its .name is still "example"
build "the tree with a copy of example.c does not build"
listed example || fail "the copy of example.c is not listed"
rm methods/copied.c
build "make fails after the copy was removed"
! listed example || fail "the removed copy is still listed"

printf 'int mb_extra_for_test(void);\nint mb_extra_for_test(void)\n{\n    return 1;\n}\n' >base/extra_for_test.c
build "the tree with one more source file does not build"
ar t build/libmaskbench.a | grep -qx extra_for_test.o || fail "a new source file is not in the archive"
rm base/extra_for_test.c
build "make fails after a source file was removed"
! ar t build/libmaskbench.a | grep -qx extra_for_test.o || fail "a removed source file is still in the archive"
echo "ok: one file adds a method, and removing it removes it"
