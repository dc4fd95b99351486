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

# A file that a message names is there: every path of these messages that is no place to write to or to look in.
named_are_there() { # COMMAND...: it is refused, and what its sentence tells one to run or read exists
    "$@" >"$scratch/said" 2>&1 && fail "$* was not refused"
    local files='[^ "]*/(fetch\.sh|example\.c|method\.h|[a-z_0-9]+\.md|(sample|configs|docs)(/[A-Za-z_0-9.]+)*)'
    for path in $(grep -oE "$files" "$scratch/said"); do
        [ -e "$path" ] || [ -e "$prefix/share/maskbench/$path" ] || fail "$* names $path, which is not there"
    done
}
"$prefix/bin/harness" doctor --data none >"$scratch/doctor" || fail "doctor"
for path in $(grep -oE '[^ ]*(fetch\.sh|datasets/sample)' "$scratch/doctor"); do
    [ -e "$path" ] || fail "doctor names $path, which is not there"
done
script="$prefix/share/maskbench/datasets/fetch.sh"
[ "$(grep -c "$script --dir datasets/data longbench" "$scratch/doctor")" = 1 ] ||
    fail "doctor does not name the installed fetch.sh"
for task in hotpotqa '{"task": "ruler_qa_1"}' longgenbench_gsm8k '{"task": "niah_classic"}'; do
    [[ $task == {* ]] || task="\"$task\""
    named_are_there "$prefix/bin/harness" --methods exact --set "tasks=[$task]" --data none --db x.db
    grep -q "bash $script --dir datasets/data" "$scratch/said" ||
        { fail "$task does not name fetch.sh"; cat "$scratch/said"; }
done
echo broken >broken.so
named_are_there "$prefix/bin/harness" --plugin ./broken.so list methods
grep -q "$prefix/share/maskbench/methods/examples/example.c" "$scratch/said" ||
    fail "a broken plug-in is not told where the example is"
named_are_there "$prefix/bin/harness" train
# The script itself works from there, and writes below the working folder.
bash "$script" --list | grep -q longbench || fail "the installed fetch.sh --list"
# No message has a path of the source tree by itself: those that stand in strings are files of an installed tree, of
# a run, of the embedded texts, or of a source tree that the command is about.
grep -hoE '"[^"]*"' "$root"/driver/*.c "$root"/driver/*/*.c "$root"/datasets/*.c "$root"/datasets/*/*.c "$root"/model/*.c \
    "$root"/model/*/*.c "$root"/methods/registry/*.c "$root"/results/*.c "$root"/training/*.c "$root"/kernels/*.c "$root"/properties/*.c |
    grep -F ' ' |
    grep -oE '\b(docs|tools|plots|python|paper|findings|tests|datasets|configs|models|results/queries)/[A-Za-z_0-9./%-]+' |
    grep -vE '^configs/|/$|%|^datasets/(data|sample)|^models/tiny|\.h$|is not compiled' | sort -u >"$scratch/paths"
while read -r path; do
    [ -e "$prefix/share/maskbench/$path" ] || [ -e "$prefix/share/doc/maskbench/$path" ] ||
        grep -qF "$path" "$root/${BUILD:-build}/generated/embedded.h" ||
        fail "a message names $path, which is not installed"
done <"$scratch/paths"
grep -q docs/ "$scratch/paths" || fail "no message with a path was found: the search above is broken"

# A folder of the same name in the working folder comes first.
mkdir -p models/tiny
expect_exit 2 'models/tiny' "$prefix/bin/harness" --methods exact --db x.db
cd "$root" || exit 1
make_ uninstall
[ -z "$(find "$prefix" -type f)" ] || fail "uninstall left $(find "$prefix" -type f | head -3)"
exit $((failures > 0))
