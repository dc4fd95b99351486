#!/usr/bin/env bash
# Shards that are killed at random moments, and merges that are killed, for some minutes: nothing is lost, nothing is doubled,
# no merge leaves half of a file. Some shards and merges begin on a disk that is too small for them (a tmpfs, for which mount must
# be allowed; else that part is left out, and the last line says so), and go on elsewhere. Rounds: four shards of a small run until
# each is done, then all that was merged against the run in one piece. Prints what really ran. Not part of make test.
# usage: tests/scale/soak.sh [MINUTES] [SEED]; SOAK_FLAGS="--threads 1" leaves a core to other work
. "$(dirname "$0")/../driver/lib.sh"
minutes=${1:-10}
RANDOM=${2:-1}
until=$((SECONDS + minutes * 60))
config=tests/driver/configs/shards.json
cp harness "$scratch/harness" # another build in between would be other code, whose rows stand for themselves
run="nice -n 19 $scratch/harness --config $config --quiet ${SOAK_FLAGS:-}"
signals=(KILL KILL TERM USR1)
begin=$(date +%s%3N)
$run --db "$scratch/whole.db" || { echo "the run in one piece failed"; exit 1; }
whole=$(($(date +%s%3N) - begin)) # milliseconds: signals come within as long
starts=0 kills=0 merges=0 cut=0 rounds=0 devices=0 full=0
least=0 most=0 # peak memory of a shard, MiB
small=$scratch/small; mkdir "$small"
disk=0; mount -t tmpfs -o size=64k none "$small" 2>/dev/null && disk=1 && trap 'umount "$small"; rm -rf "$scratch"' EXIT

# start SECONDS-LIMIT COMMAND...: ends it by a signal unless it is quicker. 0: it ended by itself.
cut_short() {
    local limit=$1 signal=${signals[RANDOM % 4]} child rc; shift
    "$@" >/dev/null 2>"$scratch/said" &
    child=$!
    sleep "$limit"
    kill -$signal $child 2>/dev/null
    wait $child 2>/dev/null; rc=$?
    case $rc in 0) return 0 ;; 130 | 137 | 143 | 138) return 1 ;; *) fail "exit code $rc of: $*"; cat "$scratch/said"; return 1 ;; esac
}
moment() { local ms=$((RANDOM * whole / 32768 + 20)); printf '%d.%03d' $((ms / 1000)) $((ms % 1000)); }

# A disk with room for a part of what is written.
small_disk() { rm -rf "$small"/*; mount -o "remount,size=$((192 + RANDOM % 448))k" "$small"; }
# What is there when the disk is full is a sound file, and goes on where there is room. 0: it was full.
until_full() { # FILE-ON-THE-DISK COMMAND...
    local file=$1 rc; shift
    "$@" >/dev/null 2>"$scratch/said"; rc=$?
    [ $rc = 0 ] && return 1
    [ $rc = 1 ] && grep -q 'full' "$scratch/said" || { fail "exit code $rc where the disk is full"; cat "$scratch/said"; return 1; }
    full=$((full + 1))
    [ ! -s "$file" ] || [ "$(sqlite3 "$file" 'PRAGMA quick_check' 2>&1)" = ok ] || fail "a full disk left a damaged file"
}

while [ $SECONDS -lt $until ] && [ $failures = 0 ]; do
    rm -f "$scratch"/part-*.db* "$scratch"/all.db*
    left="1 2 3 4"
    while [ -n "$left" ] && [ $failures = 0 ]; do
        still=""
        for i in $left; do
            more=""
            [ $((RANDOM % 4)) = 0 ] && more="--devices cpu,cpu" && devices=$((devices + 1))
            starts=$((starts + 1))
            if [ $disk = 1 ] && [ ! -e "$scratch/part-$i.db" ] && [ $((RANDOM % 2)) = 0 ]; then
                small_disk
                if until_full "$small/part.db" $run --db "$small/part.db" --shard $i/4 && [ -s "$small/part.db" ]; then
                    sqlite3 "$small/part.db" 'PRAGMA query_only = 1' >/dev/null # the log as it is goes along
                    for f in "" -wal; do [ ! -e "$small/part.db$f" ] || cp "$small/part.db$f" "$scratch/part-$i.db$f"; done
                fi
            fi
            if cut_short "$(moment)" $run --db "$scratch/part-$i.db" --shard $i/4 $more; then :; else kills=$((kills + 1)); still="$still $i"; fi
        done
        left=$still
        parts=$(ls "$scratch"/part-*.db 2>/dev/null) || continue
        merges=$((merges + 1))
        if [ $disk = 1 ] && [ $((RANDOM % 4)) = 0 ]; then
            small_disk
            until_full "$small/all.db" "$scratch/harness" merge "$small/all.db" $parts
        fi
        cut_short "0.$(printf %03d $((RANDOM % 1000)))" "$scratch/harness" merge "$scratch/all.db" $parts || cut=$((cut + 1))
        [ ! -e "$scratch/all.db" ] || [ "$(sqlite3 "$scratch/all.db" 'PRAGMA quick_check' 2>&1)" = ok ] || fail "a merge that was killed left a damaged file"
        [ $SECONDS -lt $until ] || break
    done
    for i in $left; do $run --db "$scratch/part-$i.db" --shard $i/4 || fail "shard $i does not end"; done
    "$scratch/harness" merge "$scratch/all.db" "$scratch"/part-*.db >"$scratch/said" || fail "the last merge"
    grep -q 'all 4 shards' "$scratch/said" || { fail "shards are missing"; cat "$scratch/said"; }
    same_content "$scratch/whole.db" "$scratch/all.db"
    [ "$(sqlite3 "$scratch/all.db" 'PRAGMA foreign_key_check; PRAGMA integrity_check')" = ok ] || fail "the result is damaged"
    rounds=$((rounds + 1))
    read -r low high < <(sqlite3 -separator ' ' "$scratch/all.db" "SELECT min(peak_bytes) / 1048576, max(peak_bytes) / 1048576 FROM session WHERE state = 'done'")
    [ $least != 0 ] && [ $least -le "$low" ] || least=$low
    [ $most -ge "$high" ] || most=$high
done
echo "$((SECONDS / 60)) min: $rounds rounds of 4 shards, $starts starts of which $kills were cut short ($devices over two workers), $merges merges of which $cut were cut short; $([ $disk = 1 ] && echo "$full times the disk was full" || echo "no small disk could be mounted"); peak memory of a shard $least to $most MiB; $failures failures"
exit $((failures > 0))
