#!/usr/bin/env bash
# A run in shards: together they are the run, bit for bit, whatever was killed and repeated; the timed passes are a
# shard of their own; what is missing is named.
. "$(dirname "$0")/lib.sh"
run="./harness --config tests/driver/configs/shards.json --quiet"
part() { # I N [flags]: its samples, as "key key key"
    local i=$1 n=$2; shift 2
    expect_exit 0 '' $run --db "$scratch/$i-$n.db" --shard $i/$n "$@"
    sqlite3 -readonly "$scratch/$i-$n.db" "SELECT group_concat(DISTINCT item) FROM v_samples"
}
expect_exit 0 '' $run --db "$scratch/whole.db"
[ "$(sqlite3 "$scratch/whole.db" 'SELECT count(DISTINCT item) FROM v_samples')" = 4 ] || fail "4 items were expected"

# Shards share no sample and leave none out; a part has no table of its own.
for i in 1 2 3; do part $i 3; done >"$scratch/parts"
[ "$(tr , '\n' <"$scratch/parts" | sort | uniq -d)" = '' ] && [ "$(tr , '\n' <"$scratch/parts" | sort -u | wc -l)" = 4 ] ||
    { fail "three shards do not split the samples"; cat "$scratch/parts"; }
[ "$(sqlite3 "$scratch/2-3.db" 'SELECT count(*) FROM gate')" = 0 ] || fail "a shard judges a part of a run"
tokens() { sqlite3 -readonly "$1" 'SELECT sum(tokens) FROM prompt'; }
for i in 1 2 3; do tokens "$scratch/$i-3.db"; done | sort -n | awk 'NR == 1 { low = $1 } { high = $1 } END { exit !(high - low <= 64) }' ||
    fail "the shards' tokens are uneven"

expect_exit 0 '' ./harness merge "$scratch/merged.db" "$scratch/3-3.db" "$scratch/1-3.db"
grep -q 'run shards: 1 of its 3 shards are missing: 2 (not there) of 3' "$scratch/out" || { fail "the missing shard is not named"; cat "$scratch/out"; }

# A shard that was killed goes on; one that ended computes nothing.
rm "$scratch"/2-3.db*
$run --db "$scratch/2-3.db" --shard 2/3 2>/dev/null &
sleep 0.4; kill -KILL $! 2>/dev/null; wait $! 2>/dev/null
part 2 3 >/dev/null
before=$(sqlite3 "$scratch/2-3.db" 'SELECT sum(decode_us) FROM sample')
part 2 3 >/dev/null
[ "$(sqlite3 "$scratch/2-3.db" 'SELECT sum(decode_us) FROM sample')" = "$before" ] || fail "a shard computed stored samples again"
expect_exit 0 '' ./harness merge "$scratch/merged.db" "$scratch"/?-3.db "$scratch/merged.db"
grep -q 'run shards: all 3 shards' "$scratch/out" || { fail "the shards are not all there"; cat "$scratch/out"; }
same_content "$scratch/whole.db" "$scratch/merged.db"
expect_exit 0 '' ./harness merge "$scratch/merged.db" "$scratch/1-3.db" "$scratch/whole.db"
same_content "$scratch/whole.db" "$scratch/merged.db"
diff <(./harness report "$scratch/whole.db" --csv) <(./harness report "$scratch/merged.db" --csv) >"$scratch/diff" || { fail "the reports differ"; cat "$scratch/diff"; }
[ "$(sqlite3 "$scratch/merged.db" 'PRAGMA foreign_key_check; PRAGMA integrity_check')" = ok ] || fail "the merged database is damaged"

# Two values of one sample.
sqlite3 "$scratch/1-3.db" "UPDATE sample SET score = 0.125"
cp "$scratch/merged.db" "$scratch/before.db"
expect_exit 2 'score is 0.125 in .*1-3.db and .* in ' ./harness merge "$scratch/merged.db" "$scratch/1-3.db"
same_content "$scratch/before.db" "$scratch/merged.db"
expect_exit 2 'nowhere.db' ./harness merge "$scratch/new.db" "$scratch/nowhere.db"
[ -e "$scratch/new.db" ] && fail "a merge that failed left a database"
expect_exit 2 'merge what' ./harness merge "$scratch/new.db"

# SIGTERM and SIGUSR1, as a cluster sends them: exit code 130, and the same command goes on.
for signal in TERM USR1; do
    rm -f "$scratch"/1-1.db*
    $run --db "$scratch/1-1.db" --shard 1/1 2>"$scratch/err" &
    child=$!
    for i in $(seq 100); do [ -e "$scratch/1-1.db-wal" ] && break; sleep 0.05; done
    kill -$signal $child; wait $child; rc=$?
    [ $rc = 130 ] || { fail "SIG$signal gave exit code $rc"; cat "$scratch/err"; }
done

# The timed passes: shard 0 has them and no sample, the others have none of them.
timed='passes=["quality","latency"]'
latency='latency={"contexts": [128], "batches": [1], "steps": [2], "blocks_min": 2, "blocks_max": 2, "seconds": 0.1, "prefill": false}'
part 0 1 --set "$timed" --set "$latency" >/dev/null
[ "$(sqlite3 "$scratch/0-1.db" 'SELECT count(*), (SELECT count(*) > 0 FROM latency) FROM sample')" = '0|1' ] || fail "shard 0 is not the timed passes"
expect_exit 0 '' ./harness merge "$scratch/timed.db" "$scratch/0-1.db"
grep -q 'missing: 1 (not there) of 1' "$scratch/out" || { fail "the samples are not missed"; cat "$scratch/out"; }
expect_exit 2 'shard 0 of 3 is the timed passes, and the config has none' $run --shard 0/3
expect_exit 2 'shard 1 of 3 has no samples' $run --shard 1/3 --set 'passes=["latency"]'
expect_exit 2 'takes I/N' $run --shard 4/3

# The jobs of a cluster, written and not submitted (tests/slurm/run.sh submits them).
expect_exit 0 '' ./harness slurm --config tests/driver/configs/shards.json --set results="$scratch/it's.db" --set "$timed" --shards 9 \
    --partition big --time 2:00:00 --sbatch '--gres=gpu:1' --devices 0 --dry-run
for script in shard merge; do bash -n "$scratch/it's.shards/$script.sh" || fail "$script.sh is no script"; done
grep -q '^#SBATCH --array=0-9$' "$scratch/it's.shards/shard.sh" && grep -q -- "--devices '0'" "$scratch/it's.shards/shard.sh" ||
    { fail "the job array lacks what was asked for"; cat "$scratch/it's.shards/shard.sh"; }
expect_exit 2 'how many shards' ./harness slurm --config tests/driver/configs/shards.json --partition big
expect_exit 2 'timed passes only' ./harness slurm --config tests/driver/configs/shards.json --set 'passes=["latency"]' --shards 2
exit $((failures > 0))
