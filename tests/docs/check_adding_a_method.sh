#!/usr/bin/env bash
# docs/adding-a-method.md, executed: every fenced sh block in order, in a scratch folder, with a home of its own.
. "$(dirname "$0")/../driver/lib.sh"
root=$PWD
{
    # The program is built already: "make install" here installs that build.
    echo "make() { [ \"\$1\" = install ] || return 1; shift; command make --no-print-directory -s -C '$root' BUILD='${BUILD:-build}' install-files \"\$@\"; }"
    awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' docs/adding-a-method.md
} >"$scratch/commands.sh"
[ "$(grep -c . "$scratch/commands.sh")" -gt 80 ] || fail "hardly any command was found in docs/adding-a-method.md"
mkdir "$scratch/home" "$scratch/work"
(cd "$scratch/work" && HOME="$scratch/home" timeout 600 bash -eu "$scratch/commands.sh") >"$scratch/log" 2>&1 ||
    { fail "a command of docs/adding-a-method.md failed"; tail -20 "$scratch/log"; }
[ "$(grep -c '^ok: key_mean$' "$scratch/log")" = 2 ] || fail "the skeleton or the method did not pass its own test"
grep -q 'page -1 of KV head 0 lies outside the prefix' "$scratch/log" || fail "the broken variant was not caught"
grep -qE '^key_mean k=32\|0\.[0-9]+' "$scratch/log" || fail "no recall of the new method at the end"
grep -qE '^reached\|counting k=[0-9]+\|1\|[0-9.]+' "$scratch/log" || fail "no counter by step of the skeleton"
[ -z "$(git -C "$root" status --short docs methods 2>/dev/null | grep key_mean)" ] || fail "the source tree was written to"

# ---- new-method refuses what it would have to guess or overwrite ----
expect_exit 2 'needs a name' ./harness new-method
expect_exit 2 'begins with a letter' ./harness new-method 9lives --out "$scratch/x"
expect_exit 2 'a-z, 0-9 and _' ./harness new-method 'a-b' --out "$scratch/x"
expect_exit 2 'a-z, 0-9 and _' ./harness new-method '../up' --out "$scratch/x"
expect_exit 2 'there is a method of this name' ./harness new-method "$(basename "$(ls methods/*.c | head -1)" .c)" --out "$scratch/x"
[ -e "$scratch/x" ] && fail "a refused name left a folder"
expect_exit 0 '' ./harness new-method fresh --out "$scratch/x"
cp "$scratch/x/fresh.c" "$scratch/fresh.c"
expect_exit 2 'fresh.json exists and is not overwritten' bash -c "rm '$scratch/x/fresh.c'; exec ./harness new-method fresh --out '$scratch/x'"
[ -e "$scratch/x/fresh.c" ] && fail "something was written beside a file that exists"
exit $((failures > 0))
