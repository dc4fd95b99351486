#!/usr/bin/env bash
# A run whose database goes away, is held by somebody else, or may not grow: what it says, its exit code, what is saved.
. "$(dirname "$0")/lib.sh"
run="./harness --config tests/driver/configs/small.json --out "
rows() { sqlite3 -readonly "$1" 'SELECT count(*) FROM sample' 2>/dev/null || echo 0; }
await_rows() { for _ in $(seq 600); do [ "$(rows "$1")" -gt 0 ] && return; sleep 0.05; done; fail "no row in $1"; }

# Removed, replaced during the run (more ways: tests/results/test_store_file.c): exit 1, and the rows lie beside it.
for how in "rm" "cp --remove-destination README.md"; do
    db=$scratch/gone.db
    rm -rf "$scratch"/gone.db*
    $run"" --db "$db" --limit 40 --set threads=1 >"$scratch/out" 2>"$scratch/err" &
    child=$!
    await_rows "$db"
    $how "$db"
    wait $child; rc=$?
    [ $rc = 1 ] || fail "$how: exit code $rc"
    grep -q "saved-$child" "$scratch/err" || fail "$how: the message does not say where the rows are"
    [ "$(rows "$db.saved-$child")" -gt 0 ] || fail "$how: no rows were saved"
done
for name in :memory: ''; do expect_exit 2 '' $run"" --db "$name"; done

# Held by another program for more than 10 s: the run waits, says so and goes on.
$run"" --db "$scratch/held.db" --set threads=1 >"$scratch/out" 2>"$scratch/err" &
child=$!
await_rows "$scratch/held.db"
{ echo 'BEGIN IMMEDIATE;'; sleep 12; echo 'COMMIT;'; } | sqlite3 -cmd '.timeout 5000' "$scratch/held.db"
wait $child; rc=$?
[ $rc = 0 ] || { fail "a run that waited ended with exit code $rc"; cat "$scratch/err"; }
grep -q 'waiting (10 s so far)' "$scratch/err" || fail "nothing is said about the wait"

# A limit on the size of files: an error of the write (exit 1), not a death by a signal. A hang-up: as SIGTERM.
(ulimit -f 120; $run"" --db "$scratch/limit.db" >"$scratch/out" 2>"$scratch/err"); rc=$?
[ $rc = 1 ] || fail "a limit on the size of files gave exit code $rc"
grep -q 'limit.db' "$scratch/err" || fail "the message does not name the file that may not grow"
$run"" --db "$scratch/hup.db" --limit 40 --set threads=1 >"$scratch/out" 2>"$scratch/err" &
child=$!
await_rows "$scratch/hup.db"
kill -HUP $child; wait $child; rc=$?
[ $rc = 130 ] || fail "SIGHUP gave exit code $rc"
exit $((failures > 0))
