#!/usr/bin/env bash
# usage: bash tests/campaign/kills.sh [SECONDS] [SEED]
# SIGKILL at random moments of runs with the passes quality, recall and latency, the same command again until it is
# done, and again from the start while SECONDS last: what is stored equals an undisturbed run (rows lost, doubled or
# different are failures); times are left out of the comparison. Prints its seed and how many kills there were.
. "$(dirname "$0")/../driver/lib.sh"
seconds=${1:-60} seed=${2:-$(date +%s)}
RANDOM=$seed
run="./harness --config tests/driver/configs/small.json --limit 2 --set threads=1 --quiet --out"
passes='passes=["quality","recall","latency"]'
latency='latency={"contexts": [64], "steps": [2], "blocks_max": 2, "seconds": 0.05, "prefill": false}'
arguments=(--set "$passes" --set "$latency")
$run "" --db "$scratch/whole.db" "${arguments[@]}" 2>"$scratch/err" || { fail "the undisturbed run"; cat "$scratch/err"; exit 1; }
# One start of the program as a moment to be killed in: as long as the undisturbed run took, in milliseconds.
longest=$(sqlite3 -readonly "$scratch/whole.db" 'SELECT CAST(wall_us / 1000 AS INTEGER) + 50 FROM session')
begin=$(date +%s) kills=0 rounds=0
while [ $(($(date +%s) - begin)) -lt "$seconds" ] && [ $failures = 0 ]; do
    rm -f "$scratch"/killed.db*
    for _ in 1 2 3 4 5; do
        $run "" --db "$scratch/killed.db" "${arguments[@]}" 2>/dev/null &
        child=$!
        moment=$(((RANDOM * 32768 + RANDOM) % longest))
        sleep "$((moment / 1000)).$(printf '%03d' $((moment % 1000)))"
        kill -KILL $child 2>/dev/null && kills=$((kills + 1))
        wait $child 2>/dev/null
    done
    $run "" --db "$scratch/killed.db" "${arguments[@]}" 2>"$scratch/err" || { fail "the last start"; cat "$scratch/err"; }
    same_content "$scratch/whole.db" "$scratch/killed.db"
    [ "$(sqlite3 "$scratch/killed.db" 'PRAGMA integrity_check')" = ok ] || fail "the database is damaged"
    rounds=$((rounds + 1))
done
echo "kills: seed $seed, $kills SIGKILLs in $rounds rounds, $failures rounds differ"
exit $((failures > 0))
