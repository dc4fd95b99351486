#!/usr/bin/env bash
# --devices: two workers on the CPU give what one process gives, also when one of them is killed; a plug-in's hooks stay in
# a process of their own below the worker.
. "$(dirname "$0")/lib.sh"
run="./harness --config tests/driver/configs/shards.json --quiet"
plugin=${BUILD:-build}/plugins/example.so
expect_exit 0 '' $run --db "$scratch/one.db"
expect_exit 0 '' ./harness --config tests/driver/configs/shards.json --db "$scratch/two.db" --devices cpu,cpu
same_content "$scratch/one.db" "$scratch/two.db"
[ "$(sqlite3 "$scratch/two.db" "SELECT count(*) FROM event WHERE text LIKE 'device cpu: _%'")" = 2 ] || fail "the devices are not stored"

# All is stored: nobody is started. A sample that is missing: it alone is computed.
sqlite3 "$scratch/two.db" "PRAGMA foreign_keys = ON; DELETE FROM sample WHERE item_id = 2 AND cell_id = 1; DELETE FROM event"
before=$(sqlite3 "$scratch/two.db" 'SELECT sum(decode_us) FROM sample')
expect_exit 0 '' $run --db "$scratch/two.db" --devices cpu
same_content "$scratch/one.db" "$scratch/two.db"
[ "$(sqlite3 "$scratch/two.db" 'SELECT sum(decode_us) FROM sample WHERE NOT (item_id = 2 AND cell_id = 1)')" = "$before" ] || fail "stored samples were computed again"
sqlite3 "$scratch/two.db" "DELETE FROM event"
expect_exit 0 '' $run --db "$scratch/two.db" --devices cpu,cpu
[ "$(sqlite3 "$scratch/two.db" 'SELECT count(*) FROM event')" = 0 ] || fail "a finished run started workers"

# Workers are killed while they work; what they had is done by the others. Then the run itself is killed and goes on.
./harness --config tests/driver/configs/shards.json --db "$scratch/killed.db" --devices cpu,cpu >/dev/null 2>"$scratch/log" &
child=$!; kills=0
for i in $(seq 200); do
    kill -0 $child 2>/dev/null || break
    worker=$(pgrep -P $child | sed -n "$((1 + i % 2))p")
    rows=$(sqlite3 -readonly "$scratch/killed.db" 'SELECT count(*) FROM sample' 2>/dev/null)
    if [ -n "$worker" ] && [ "${rows:-0}" -ge $((kills * 5 + 1)) ] && [ $kills -lt 2 ]; then
        kill -KILL "$worker" 2>/dev/null && kills=$((kills + 1))
    fi
    sleep 0.05
done
wait $child; rc=$?
[ $rc = 0 ] || { fail "a run with a killed worker ended with $rc"; cat "$scratch/log"; }
[ $kills -ge 1 ] && grep -q 'its process ended by signal 9' "$scratch/log" || { fail "no worker was killed ($kills)"; cat "$scratch/log"; }
same_content "$scratch/one.db" "$scratch/killed.db"
$run --db "$scratch/stopped.db" --devices cpu,cpu 2>/dev/null &
sleep 0.7; kill -KILL $!; wait $! 2>/dev/null
expect_exit 0 '' $run --db "$scratch/stopped.db" --devices cpu,cpu --shard 1/1
expect_exit 0 '' ./harness merge "$scratch/all.db" "$scratch/stopped.db"
same_content "$scratch/one.db" "$scratch/all.db"

# A worker that somebody stopped is told to go on, and that is said.
./harness --config tests/driver/configs/shards.json --db "$scratch/sleepy.db" --devices cpu --set plugin_seconds=0.3 >/dev/null 2>"$scratch/log" &
child=$!
for _ in $(seq 200); do worker=$(pgrep -P $child) && break; sleep 0.02; done
kill -STOP "$worker"
for _ in $(seq 300); do kill -0 $child 2>/dev/null || break; sleep 0.1; done
kill -KILL $child 2>/dev/null && fail "a run waits for a stopped worker without end"
wait $child; rc=$?
[ $rc = 0 ] && grep -q "worker on cpu (process $worker) was stopped (SIGSTOP)" "$scratch/log" || { fail "a stopped worker: exit code $rc"; cat "$scratch/log"; }
same_content "$scratch/one.db" "$scratch/sleepy.db"

# A worker that is killed while a program that a plug-in started holds its socket: noticed all the same.
chaos=$scratch/chaos.so
${CC:-cc} -std=c11 -D_GNU_SOURCE -fPIC -shared -I. -o "$chaos" tests/campaign/chaos.c -lm -pthread || fail "chaos.c does not build"
MASKBENCH_CHAOS="constructor 0 program 1 worker" ./harness --config tests/driver/configs/shards.json --db "$scratch/child.db" \
    --devices cpu --plugin "$chaos" >/dev/null 2>"$scratch/log" &
child=$!
for _ in $(seq 200); do worker=$(pgrep -P $child) && [ "$(sqlite3 -readonly "$scratch/child.db" 'SELECT count(*) FROM event' 2>/dev/null)" -gt 0 ] && break; sleep 0.02; done
kill -KILL $worker
for _ in $(seq 300); do kill -0 $child 2>/dev/null || break; sleep 0.1; done
kill -KILL $child 2>/dev/null && fail "a run waits for a worker that is gone"
wait $child; rc=$?
[ $rc = 0 ] && grep -q 'its process ended by signal 9' "$scratch/log" || { fail "a killed worker with a child: exit code $rc"; cat "$scratch/log"; }
same_content "$scratch/one.db" "$scratch/child.db"

# A plug-in.
small="--limit 1 --tasks trec --methods exact,example --plugin $plugin"
set -- --set 'methods={"exact": {}, "example": {}}' --set 'passes=["quality"]'
expect_exit 0 '' $run "$@" $small --db "$scratch/plugin.db"
expect_exit 0 '' $run "$@" $small --db "$scratch/plugins.db" --devices cpu
same_content "$scratch/plugin.db" "$scratch/plugins.db"
[ "$(sqlite3 "$scratch/plugins.db" "SELECT count(*) FROM v_samples WHERE method = 'example' AND status = 'ok'")" = 1 ] || fail "the plug-in did not run"

expect_exit 0 '' ./harness --config tests/driver/configs/shards.json --db "$scratch/none.db" --devices cpu,cpu --dry-run
grep -q '^trec ' "$scratch/out" && [ ! -e "$scratch/none.db" ] || { fail "the plan with devices"; cat "$scratch/out"; }
expect_exit 2 'takes a list' $run --devices teapot
expect_exit 2 'one kind of device' $run --devices cpu,0
expect_exit 2 'timed' $run --devices cpu --set 'passes=["latency"]'
exit $((failures > 0))
