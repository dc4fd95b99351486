#!/usr/bin/env bash
# How long merging takes at many shards: N copies (1000) of a real shard with items of their own, merged; then merged again,
# which changes nothing, and the report. Prints times and sizes for docs/scaling.md. Not part of make test.
# usage: tests/scale/merge_many.sh [N]
. "$(dirname "$0")/../driver/lib.sh"
n=${1:-1000}
config=tests/driver/configs/shards.json
# Items with what a long answer has: recall by layer and step of several configurations.
./harness --config $config --quiet --db "$scratch/seed.db" --shard 1/1 --set 'methods.mage.k=[8,16,24]' --set sampler.steps=4 --set recall.limit=0 --set passes='["quality","recall"]' ||
    { echo "the seed run failed"; exit 1; }
for i in $(seq "$n"); do
    cp "$scratch/seed.db" "$scratch/$i.db"
    sqlite3 "$scratch/$i.db" "UPDATE session SET shard = $i, shard_last = $n, command = 'shard $i'; UPDATE item SET key = key || '-$i';
        UPDATE prompt SET token_hash = token_hash || '-$i';"
done
rows() { sqlite3 -readonly "$1" 'SELECT (SELECT count(*) FROM sample) || " samples, " || (SELECT count(*) FROM recall) || " rows of recall"'; }
echo "$n shards of $(stat -c %s "$scratch/1.db") bytes: $(rows "$scratch/1.db") each"
export TIMEFORMAT='%R s, %U s of CPU'
files=$(seq -f "$scratch/%g.db" "$n")
timed() { local what=$1; shift; printf '%s: ' "$what"; { time "$@" >"$scratch/said"; } 2>&1; }
timed 'merge' ./harness merge "$scratch/all.db" $files
grep -q "all $n shards" "$scratch/said" || { fail "shards are missing"; cat "$scratch/said"; }
echo "result: $(stat -c %s "$scratch/all.db") bytes, $(rows "$scratch/all.db")"
timed 'merge once more' ./harness merge "$scratch/all.db" $files
timed 'report' ./harness report "$scratch/all.db"
timed 'one shard more' ./harness merge "$scratch/all.db" "$scratch/1.db"
exit $((failures > 0))
