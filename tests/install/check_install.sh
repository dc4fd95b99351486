#!/usr/bin/env bash
# make install: the program finds its shared files from anywhere, a plug-in builds against the installed header with
# pkg-config alone, and uninstall leaves nothing behind.
. "$(dirname "$0")/../driver/lib.sh"
root=$PWD prefix=$scratch/prefix
make_() { make --no-print-directory -s BUILD="${BUILD:-build}" PREFIX="$prefix" "$@" >"$scratch/make" 2>&1 || { fail "make $*"; tail -3 "$scratch/make"; }; }
make_ install-files
for f in bin/harness include/maskbench/method.h lib/pkgconfig/maskbench.pc share/maskbench/models/tiny/config.json \
         share/maskbench/configs/quick.json share/maskbench/datasets/fetch.sh share/maskbench/results/queries/longbench.sql \
         share/doc/maskbench/LICENSE share/doc/maskbench/README.md share/doc/maskbench/docs/methods.md share/man/man1/harness.1 \
         share/bash-completion/completions/harness share/zsh/site-functions/_harness share/fish/vendor_completions.d/harness.fish; do
    [ -s "$prefix/$f" ] || fail "$f is not installed"
done

# Somewhere else, without the source tree.
mkdir "$scratch/away"
cd "$scratch/away" || exit 1
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
flags=$(pkg-config --cflags maskbench) || fail "pkg-config does not know maskbench"
[[ $flags != *"$root"* ]] || fail "the flags lead into the source tree"
sed 's|"methods/method.h"|<maskbench/method.h>|' "$root/methods/examples/example.c" >plugin.c
cc -std=c11 -Wall -Wextra -Werror -O2 -fPIC -shared $flags -o plugin.so plugin.c || fail "the plug-in does not build"
expect_exit 0 '' "$prefix/bin/harness" --plugin ./plugin.so help example
expect_exit 0 '' "$prefix/bin/harness" --plugin ./plugin.so --methods exact,example --tasks niah_multikey --limit 1 --device cpu --quiet \
    --set 'passes=["quality"]' --db away.db --out ""
[ "$(sqlite3 away.db "SELECT count(*) FROM v_samples WHERE method = 'example' AND status = 'ok'")" -gt 0 ] ||
    fail "the plug-in has no results"
expect_exit 0 '' "$prefix/bin/harness" --config configs/quick.json --methods exact --limit 1 --dry-run --db plan.db
expect_exit 2 'no/such/model' "$prefix/bin/harness" --model no/such/model --db x.db

# A file that a message names is there.
"$prefix/bin/harness" doctor --data none >"$scratch/doctor" || fail "doctor"
fetch=$(grep -oE '[^ ]*fetch\.sh' "$scratch/doctor") && [ -f "$fetch" ] || fail "doctor names $fetch, which is not there"

# A folder of the same name in the working folder comes first.
mkdir -p models/tiny
expect_exit 2 'models/tiny' "$prefix/bin/harness" --methods exact --db x.db
cd "$root" || exit 1
make_ uninstall
[ -z "$(find "$prefix" -type f)" ] || fail "uninstall left $(find "$prefix" -type f | head -3)"
exit $((failures > 0))
