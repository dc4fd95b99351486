#!/usr/bin/env bash
# datasets/fetch.sh against a table of our own with file:// addresses: listing, dry run, download, resume, wrong and
# missing checksums, unpacking, refusals. Nothing leaves the machine.
set -euo pipefail
command -v curl >/dev/null || { echo "skipped: no curl"; exit 0; }
cd "$(dirname "$0")/../.."
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
export MASKBENCH_SOURCES=$box/sources.tsv
fetch() { bash datasets/fetch.sh --dir "$box/data" "$@" >"$box/log" 2>&1; }
say() { echo "check_fetch: $1"; cat "$box/log"; exit 1; }

mkdir -p "$box/host/top/test"
seq 1 20000 >"$box/host/numbers.txt"
echo "a question" >"$box/host/top/test/one.csv"
tar -cf "$box/host/pack.tar" -C "$box/host" top
sum=$(sha256sum "$box/host/numbers.txt" | cut -d' ' -f1)
pack=$(sha256sum "$box/host/pack.tar" | cut -d' ' -f1)
size=$(stat -c %s "$box/host/numbers.txt")
url=file://$box/host
{
    printf 'set\tgood\tnumbers and a pack\tMIT\n'
    printf 'file\tgood\tsub/numbers.txt\t%s\t%s\t-\t%s/numbers.txt\n' "$size" "$sum" "$url"
    printf 'file\tgood\tpack.tar\t-\t%s\ttar:inside\t%s/pack.tar\n' "$pack" "$url"
    printf 'set\twrong\ta changed file\tMIT\n'
    printf 'file\twrong\tnumbers.txt\t%s\t%064d\t-\t%s/numbers.txt\n' "$size" 0 "$url"
    printf 'set\tunknown\ta file without a checksum\tMIT\n'
    printf 'file\tunknown\tnumbers.txt\t-\t-\t-\t%s/numbers.txt\n' "$url"
    printf 'set\tgone\ta file that is not there\tMIT\n'
    printf 'file\tgone\tnothing.txt\t-\t-\t-\t%s/nothing.txt\n' "$url"
} >"$MASKBENCH_SOURCES"

fetch --list || say "--list failed"
{ grep -q 'good: numbers and a pack' "$box/log" && grep -q 'licence: MIT' "$box/log"; } || say "--list does not tell"
fetch --dry-run good || say "--dry-run failed"
[ ! -e "$box/data" ] || say "--dry-run wrote something"

mkdir -p "$box/data/good/sub"
head -c 5000 "$box/host/numbers.txt" >"$box/data/good/sub/numbers.txt.part"
fetch good || say "the download failed"
cmp -s "$box/host/numbers.txt" "$box/data/good/sub/numbers.txt" || say "the resumed file is not the original"
cmp -s "$box/host/top/test/one.csv" "$box/data/good/inside/test/one.csv" || say "the pack was not unpacked"
{ [ ! -e "$box/data/good/pack.tar" ] && [ ! -e "$box/data/good/sub/numbers.txt.part" ]; } || say "leftovers"
mv "$box/host" "$box/moved"
fetch good || say "a second run needs the network although everything is here"
mv "$box/moved" "$box/host"

fetch wrong && say "a file with another checksum was taken"
grep -q 'expected 0000' "$box/log" || say "the refusal does not name the checksum"
{ [ ! -e "$box/data/wrong/numbers.txt" ] && [ -e "$box/data/wrong/numbers.txt.refused" ]; } || say "not set aside"
fetch unknown || say "a set without checksum failed"
{ grep -q "recorded $sum" "$box/log" && grep -q "$sum" "$box/data/checksums.txt"; } || say "checksum not recorded"
echo changed >>"$box/data/unknown/numbers.txt"
cp "$box/data/unknown/numbers.txt" "$box/host/numbers.txt"
rm "$box/data/unknown/numbers.txt"
fetch unknown && say "a file that changed since its first download was taken"
fetch gone && say "a missing file is no failure"
grep -q 'nothing.txt failed' "$box/log" || say "the failure does not name the address"
fetch nowhere && say "an unknown set is no failure"
fetch && say "no set is no failure"
fetch --what good && say "an unknown flag is no failure"
unset MASKBENCH_SOURCES
fetch --list || say "the real table is broken"
[ "$(grep -c 'licence:' "$box/log")" = 7 ] || say "the real table does not have seven sets"
echo ok
