#!/usr/bin/env bash
# A run on a real Slurm of this one machine (cluster.sh): shards as a job array, the merge job behind it, SIGUSR1 before a
# time limit, a task that is killed, status, and a second submission that goes on. `make check-slurm`; not in make test: it
# takes a minute. Where Slurm cannot start, the reason is printed and the test is skipped.
. "$(dirname "$0")/../driver/lib.sh"
. "$(dirname "$0")/cluster.sh"
trap 'slurm_stop; rm -rf "$scratch"' EXIT
if ! slurm_start "$scratch/cluster"; then
    echo "skipped: $slurm_reason"
    exit 0
fi
config=tests/driver/configs/shards.json
slurm="./harness slurm --config $config --set results=$scratch/table.db"
wait_for() { # SECONDS COMMAND...: until it succeeds
    local until=$((SECONDS + $1)); shift
    while ! "$@"; do [ $SECONDS -lt $until ] || { fail "waited in vain for: $*"; squeue; tail -n 3 "$scratch"/table.shards/*.log; return 1; }; sleep 0.3; done
}
queue_empty() { [ -z "$(squeue -h)" ]; }
says() { $slurm --status >"$scratch/status" 2>&1; grep -qE "$1" "$scratch/status"; }

expect_exit 2 'how many shards' $slurm
expect_exit 2 'nothing was submitted' $slurm --status
expect_exit 0 '' $slurm --shards 3 --partition test --dry-run
grep -q 'not submitted' "$scratch/out" && queue_empty || fail "--dry-run submitted"

# Three shards and the merge job.
expect_exit 0 '' $slurm --shards 3 --partition test
grep -q 'shards 1 to 3; job' "$scratch/out" || { fail "what was submitted is not said"; cat "$scratch/out"; }
wait_for 90 queue_empty
says 'shards 1 to 3: 3 done; 18 samples stored$' || { fail "status after the run"; cat "$scratch/status"; }
./harness --config $config --quiet --db "$scratch/whole.db" || fail "the run in one piece"
same_content "$scratch/whole.db" "$scratch/table.db"
grep -q 'all 3 shards' "$scratch/table.shards/merge.log" || { fail "the merge job says nothing of its shards"; cat "$scratch/table.shards/merge.log"; }

# One shard, interrupted as before a time limit: it ends with 130, is queued again, and status says so.
rm -rf "$scratch"/table.*
expect_exit 0 '' $slurm --shards 1 --partition test --set threads=1
job=$(cut -d' ' -f1 "$scratch/table.shards/job")
stored() { [ "$(sqlite3 -readonly "$scratch/table.shards/1.db" 'SELECT count(*) FROM sample' 2>/dev/null || echo 0)" -ge 1 ]; }
wait_for 60 stored
scancel --batch --signal=USR1 "${job}_1"
wait_for 30 grep -q 'exit code 130 after SIGUSR1' "$scratch/table.shards/1.log"
wait_for 30 says '1 waiting'
[ "$(sqlite3 -readonly "$scratch/table.shards/1.db" 'SELECT state FROM run')" = interrupted ] || fail "the shard is not stored as interrupted"
[ ! -e "$scratch/table.db" ] || fail "the merge job did not wait"
scancel -u root; wait_for 30 queue_empty

# Submitted again: only what is missing is computed. A SIGKILL on the way: status says failed, the merge names the shard.
rows=$(sqlite3 -readonly "$scratch/table.shards/1.db" 'SELECT sum(decode_us) FROM sample')
expect_exit 0 '' $slurm --shards 1 --partition test --set threads=1
wait_for 90 queue_empty
says '1 done' || { fail "status after the second submission"; cat "$scratch/status"; }
same_content "$scratch/whole.db" "$scratch/table.db"
[ "$(sqlite3 -readonly "$scratch/table.shards/1.db" "SELECT sum(decode_us) FROM sample WHERE session_id = 1")" = "$rows" ] || fail "stored samples were computed again"
rm -rf "$scratch"/table.*
expect_exit 0 '' $slurm --shards 2 --partition test --set threads=1
job=$(cut -d' ' -f1 "$scratch/table.shards/job")
running() { [ -e "$scratch/table.shards/2.db" ]; }
wait_for 60 running
scancel --full --signal=KILL "${job}_2"
wait_for 90 queue_empty
says '1 (failed|not started)' && grep -q 'shard 2 ' "$scratch/status" || { fail "a killed shard passes for done"; cat "$scratch/status"; }
grep -qE 'missing: 2 \((running|not there)\) of 2' "$scratch/table.shards/merge.log" || { fail "the merge does not name the killed shard"; cat "$scratch/table.shards/merge.log"; }
[ $failures = 0 ] && echo "slurm $(sinfo --version): done in $SECONDS s"
exit $((failures > 0))
