#!/usr/bin/env bash
# Output that was not written is a failure; a reader that leaves is none; --out writes into what is no regular file.
. "$(dirname "$0")/lib.sh"
db=$scratch/a.db
./harness --config tests/driver/configs/small.json --out "" --db "$db" --limit 1 --quiet 2>/dev/null || fail "the run failed"
for command in "export $db --csv" "report $db" "list methods" "list runs $db" "--help" "--version" "help mage"; do
    rc=0; ./harness $command >/dev/full 2>"$scratch/err" || rc=$?
    [ $rc = 1 ] || fail "$command on a full disk: exit code $rc"
    grep -q 'standard output could not be written' "$scratch/err" || fail "$command on a full disk says nothing"
    ./harness $command 2>"$scratch/err" | head -c 1 >/dev/null
    [ "${PIPESTATUS[0]}" = 0 ] || fail "$command | head: exit code ${PIPESTATUS[0]}"
    [ -s "$scratch/err" ] && { fail "$command | head complains"; cat "$scratch/err"; }
done
rc=0; ./harness export "$db" --csv --out /dev/full 2>"$scratch/err" || rc=$?
[ $rc = 1 ] || fail "--out on a full disk: exit code $rc"

./harness export "$db" --csv >"$scratch/whole.csv"
mkfifo "$scratch/fifo"; cat "$scratch/fifo" >"$scratch/read.csv" & reader=$!
./harness export "$db" --csv --out "$scratch/fifo" >/dev/null || fail "--out of a FIFO failed"
[ -p "$scratch/fifo" ] || { fail "--out replaced a FIFO"; : >"$scratch/fifo"; }
wait $reader
cmp "$scratch/whole.csv" "$scratch/read.csv" || fail "a FIFO got something else"
mkdir "$scratch/there"; echo old >"$scratch/there/file"; ln -s there/file "$scratch/link"; ln -s there/new "$scratch/dangling"
for name in link dangling; do
    ./harness export "$db" --csv --out "$scratch/$name" >/dev/null || fail "--out of a symlink failed"
    [ -L "$scratch/$name" ] || fail "--out replaced a symlink"
    cmp "$scratch/whole.csv" "$scratch/$name" || fail "a symlink's target got something else"
done
exit $((failures > 0))
