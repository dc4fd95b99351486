#!/usr/bin/env bash
# usage: bash tests/campaign/kills.sh [SECONDS] [SEED] [KIND...]
# SIGKILL at random moments, the same command again until it is done, and again from the start while SECONDS last. What
# is stored equals an undisturbed run: rows lost, doubled or different are failures; times are left out of the
# comparison. The kinds take turns (all of them by default):
#   passes    one process with the passes quality, recall and latency
#   devices   the passes quality and recall on two worker processes; the one that hands out the work is killed
#   merge     three shards merged into one database; after each kill it is whole or not there
#   training  a training of twelve steps with a checkpoint at every third; the weights are compared as well
# Prints its seed and how many kills there were. SIGTERM ends it with the counts so far.
. "$(dirname "$0")/../driver/lib.sh"
seconds=${1:-60} seed=${2:-$(date +%s)}
shift $(($# < 2 ? $# : 2))
kinds=("$@")
[ ${#kinds[@]} -gt 0 ] || kinds=(passes devices merge training)
RANDOM=$seed
declare -A kills rounds longest
for kind in "${kinds[@]}"; do kills[$kind]=0 rounds[$kind]=0; done
cp harness "$scratch/harness" || exit 1 # another build in between would be other code, whose rows stand for themselves

config="tests/driver/configs/small.json --limit 2"
timed=(--set 'passes=["quality","recall","latency"]'
    --set 'latency={"contexts": [64], "steps": [2], "blocks_max": 2, "seconds": 0.05, "prefill": false}')
small="--set start=random --set layers=2 --set hidden=64 --set query_heads=2 --set kv_heads=1 --set head_dim=32 \
--set intermediate=64 --set lengths=[128] --set tails=[128] --set tokens=256 --set steps=12 --set save_every=3"

# Each kind: how it is started (NAME stands for what it writes), what is left of NAME, and whether that is as it must be.
start() { # KIND NAME: becomes the program
    local name=$scratch/$2
    case $1 in
        passes) exec "$scratch/harness" --config $config --set threads=1 --quiet --out "" --db "$name.db" "${timed[@]}" ;;
        devices) exec "$scratch/harness" --config $config --set threads=1 --quiet --out "" --db "$name.db" --devices cpu,cpu ;;
        merge) exec "$scratch/harness" merge "$name.db" "$scratch"/shard-?.db ;;
        training) exec "$scratch/harness" train --quiet --config configs/train_tiny.json $small --set threads=1 --set out="$name" \
            --set results="$name.db" ;;
    esac
}
steps="SELECT step, length, tokens, targets, loss, ce, accuracy, gradient_norm, lr FROM training_step ORDER BY step"
compare() { # KIND: $scratch/killed with $scratch/KIND
    if [ "$1" = training ]; then
        for file in model.safetensors training.state config.json; do
            cmp -s "$scratch/training/$file" "$scratch/killed/$file" || fail "$file differs"
        done
        diff <(sqlite3 "$scratch/training.db" "$steps") <(sqlite3 "$scratch/killed.db" "$steps") >"$scratch/diff" ||
            { fail "the stored steps differ"; head -5 "$scratch/diff"; }
    else
        same_content "$scratch/$1.db" "$scratch/killed.db"
    fi
    [ "$(sqlite3 "$scratch/killed.db" 'PRAGMA foreign_key_check; PRAGMA integrity_check')" = ok ] || fail "the database is damaged"
}
# After a kill in the middle. A merge is one transaction; of the others no half of a row may be seen.
between() {
    [ -e "$scratch/killed.db" ] || return
    [ "$(sqlite3 "$scratch/killed.db" 'PRAGMA quick_check' 2>&1)" = ok ] || fail "a killed $1 left a damaged database"
    [ "$1" != merge ] || [ "$(sqlite3 "$scratch/killed.db" 'SELECT count(*) FROM sqlite_master')" = 0 ] ||
        [ "$(sqlite3 "$scratch/killed.db" 'SELECT count(*) FROM run')" = 0 ] || same_content "$scratch/merge.db" "$scratch/killed.db"
}

summary() {
    local kind all=0
    for kind in "${kinds[@]}"; do
        echo "kills: seed $seed, $kind: ${kills[$kind]} SIGKILLs in ${rounds[$kind]} rounds"
        all=$((all + kills[$kind]))
    done
    echo "kills: seed $seed, $all SIGKILLs, $failures differences"
}
child=
trap '[ -z "$child" ] || kill -KILL $child 2>/dev/null; summary; exit $((failures > 0))' TERM

# One undisturbed run of each kind: what is compared with, and how long a moment to be killed in can be.
for kind in "${kinds[@]}"; do
    if [ "$kind" = merge ]; then
        for i in 1 2 3; do
            "$scratch/harness" --config tests/driver/configs/shards.json --set threads=1 --quiet --db "$scratch/shard-$i.db" --shard $i/3 \
                2>"$scratch/err" || { fail "shard $i"; cat "$scratch/err"; exit 1; }
        done
    fi
    begin=$(date +%s%3N)
    (start "$kind" "$kind") >"$scratch/out" 2>"$scratch/err" || { fail "the undisturbed $kind"; cat "$scratch/err"; exit 1; }
    longest[$kind]=$(($(date +%s%3N) - begin))
done
until=$((SECONDS + seconds))
while [ $SECONDS -lt $until ] && [ $failures = 0 ]; do
    for kind in "${kinds[@]}"; do
        rm -rf "$scratch"/killed*
        for _ in 1 2 3 4 5; do
            start "$kind" killed >/dev/null 2>&1 &
            child=$!
            # A process goes on where the last was killed, so five moments of half a run's length end near its end.
            moment=$(((RANDOM * 32768 + RANDOM) % (longest[$kind] / 2 + 20)))
            [ "$kind" != merge ] || moment=$((RANDOM % (longest[$kind] + 5)))
            sleep "$((moment / 1000)).$(printf '%03d' $((moment % 1000)))"
            kill -KILL $child 2>/dev/null
            wait $child 2>/dev/null
            [ $? != 137 ] || kills[$kind]=$((kills[$kind] + 1))
            between "$kind"
        done
        (start "$kind" killed) >"$scratch/out" 2>"$scratch/err" || { fail "the last start of $kind"; cat "$scratch/err"; }
        compare "$kind"
        rounds[$kind]=$((rounds[$kind] + 1))
    done
    [ -z "${KILLS_VERBOSE:-}" ] || summary
done
summary
exit $((failures > 0))
