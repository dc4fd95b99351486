#!/usr/bin/env bash
# SIGKILL at twenty moments, restart each time: the final tables equal those of an undisturbed run.
. "$(dirname "$0")/lib.sh"
run="./harness --config tests/driver/configs/small.json --out "
$run"" --db "$scratch/whole.db" --quiet 2>/dev/null || fail "the undisturbed run failed"
kills=0
for i in $(seq 20); do
    ./harness --config tests/driver/configs/small.json --out "" --db "$scratch/killed.db" --quiet 2>/dev/null &
    child=$!
    # 20 ms to 600 ms: from before the database exists to well inside the samples.
    sleep "0.$(printf '%03d' $((20 + (i * 7919) % 580)))"
    kill -KILL $child 2>/dev/null && kills=$((kills + 1))
    wait $child 2>/dev/null
done
[ $kills -ge 5 ] || fail "only $kills of 20 runs lived long enough to be killed"
$run"" --db "$scratch/killed.db" --quiet 2>"$scratch/err" || { fail "the last start failed"; cat "$scratch/err"; }
same_content "$scratch/whole.db" "$scratch/killed.db"
[ "$(sqlite3 "$scratch/killed.db" 'PRAGMA integrity_check')" = ok ] || fail "the database is damaged"
exit $((failures > 0))
