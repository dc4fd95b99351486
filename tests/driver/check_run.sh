#!/usr/bin/env bash
# The main job end to end on a small config: plan, run, resume without work, determinism, report, exports, interrupt.
. "$(dirname "$0")/lib.sh"
run="./harness --config tests/driver/configs/small.json --out "

expect_exit 0 '' $run"" --db "$scratch/none.db" --dry-run
[ -e "$scratch/none.db" ] && fail "--dry-run made a database"
grep -q niah_multikey "$scratch/out" || fail "the plan does not name the task"

# Entries of a list are set by number; a plan loads no weights: these would be 15 GB, and where
# they cannot fit the plan says so before it takes any.
expect_exit 0 '' ./harness --set sampler.0.steps=16 --set tasks.1.limit=3 --set 'methods={"mage": {"k": [1, 2]}}' \
    --set methods.mage.k.1=7 --db "$scratch/none.db" --dry-run
grep -q 'fixed, 16 steps' "$scratch/out" && grep -q 'mage k=7' "$scratch/out" && grep -qE '^qasper +3 ' "$scratch/out" ||
    fail "--set does not reach into lists"
(ulimit -v 4000000; exec ./harness --config configs/latency_128k.json --device cpu --db "$scratch/none.db" --dry-run) \
    >"$scratch/out" 2>"$scratch/err"
[ $? = 2 ] && grep -q 'cannot fit cpu: it takes' "$scratch/err" ||
    { fail "a plan of a 7B model within 4 GB is not refused by its numbers"; cat "$scratch/err"; }

expect_exit 0 '' $run"" --db "$scratch/a.db"
rows=$(sqlite3 "$scratch/a.db" 'SELECT count(*) FROM v_samples')
[ "$rows" = 84 ] || fail "84 rows expected (12 samples x (4 quality + 3 recall)), $rows stored"
score=$(sqlite3 "$scratch/a.db" "SELECT score FROM v_accuracy WHERE method = 'exact'")
[ "$score" = 1.0 ] || fail "exact attention scores $score on easy needles"

# A second start computes nothing and changes nothing but the list of sessions.
cp "$scratch/a.db" "$scratch/before.db"
expect_exit 0 '' $run"" --db "$scratch/a.db"
same_content "$scratch/before.db" "$scratch/a.db"
times() { sqlite3 -readonly "$1" 'SELECT sum(decode_us), sum(prefill_us) FROM sample'; }
[ "$(times "$scratch/before.db")" = "$(times "$scratch/a.db")" ] || fail "the second start computed stored samples again"

# Same seed: bit-equal, whatever the number of threads.
expect_exit 0 '' $run"" --db "$scratch/b.db" --set threads=1
same_content "$scratch/a.db" "$scratch/b.db"
expect_exit 0 '' $run"" --db "$scratch/c.db"
same_content "$scratch/a.db" "$scratch/c.db"

# A plan changes nothing: not the file, not which run is the newest, not what --fresh would forget.
cp "$scratch/a.db" "$scratch/before.db"
expect_exit 0 '' $run"" --db "$scratch/a.db" --seed 9 --dry-run
expect_exit 0 '' $run"" --db "$scratch/a.db" --dry-run
awk '$1 == "niah_multikey" { planned += $4; stored += $5 } END { exit !(planned == 48 && stored == 48) }' "$scratch/out" ||
    { fail "the plan does not count what is stored"; cat "$scratch/out"; }
expect_exit 0 '' $run"" --db "$scratch/a.db" --fresh --dry-run
cmp "$scratch/a.db" "$scratch/before.db" || fail "--dry-run changed the database"

# --fresh forgets when the run can start, and only what is a store of ours.
expect_exit 2 'hotpotqa.jsonl' $run"" --db "$scratch/a.db" --fresh --tasks hotpotqa --data "$scratch"
same_content "$scratch/before.db" "$scratch/a.db"
echo 'a text that is no database' >"$scratch/text"
expect_exit 2 'not an SQLite database' $run"" --db "$scratch/text" --fresh
[ "$(cat "$scratch/text")" = 'a text that is no database' ] || fail "--fresh removed somebody's file"
expect_exit 0 '' $run"" --db "$scratch/before.db" --fresh --limit 1
rows=$(sqlite3 "$scratch/before.db" 'SELECT count(DISTINCT item) FROM v_samples')
[ "$rows" = 1 ] || fail "--fresh --limit 1 left $rows items"

# Reports and exports.
for format in "" --md --csv --jsonl; do
    expect_exit 0 '' ./harness report "$scratch/a.db" $format
    [ -s "$scratch/out" ] || fail "report $format is empty"
done
expect_exit 0 '' ./harness export "$scratch/a.db" --pred "$scratch/pred"
[ "$(find "$scratch/pred" -name 'niah_multikey.jsonl' | wc -l)" = 4 ] || fail "pred/ holds another number of files than 4"
expect_exit 0 '' ./harness list runs "$scratch/a.db"

# The one that is asked for and the one that is not known.
expect_exit 0 '' ./harness help mage
grep -q 'k ' "$scratch/out" || fail "help lacks the option k"
expect_exit 0 '' ./harness help config
expect_exit 0 '' ./harness help niah_multivalue
grep -q 'values  .* (2)' "$scratch/out" || fail "help lacks the task's own key"
expect_exit 2 'no method, no task and no command' ./harness help telepathy

# A red gate of another run in the same file is that run's business.
cp "$scratch/a.db" "$scratch/red.db"
sqlite3 "$scratch/red.db" "INSERT OR REPLACE INTO gate VALUES (1, 'no sparse arm above the reference', 'fail', 'by hand')"
expect_exit 0 '' $run"" --db "$scratch/red.db" --seed 4 --limit 1
[ "$(sqlite3 "$scratch/red.db" "SELECT run FROM v_gates WHERE verdict = 'fail'")" = small ] || fail "the gate by hand is gone"
expect_exit 0 '' ./harness list runs "$scratch/red.db"
grep -q 'small#2' "$scratch/out" || fail "list runs lacks a run"
[ "$(wc -L <"$scratch/out")" -le 100 ] || fail "list runs prints lines of $(wc -L <"$scratch/out") columns"

# A task's own limit of new tokens is the one that is planned and stored.
expect_exit 0 '' $run"" --db "$scratch/own.db" --methods exact \
    --set 'tasks=[{"task": "niah_single", "lengths": [512], "depths": [50], "max_new_tokens": 32}]'
[ "$(sqlite3 "$scratch/own.db" 'SELECT max_new_tokens FROM dataset')" = 32 ] || fail "the task's max_new_tokens is not stored"

# A context that holds blocks but no prompt: timed, without a request.
expect_exit 0 '' $run"" --db "$scratch/short.db" --methods exact --quiet \
    --set 'passes=["latency"]' --set 'latency={"contexts": [128, 160], "steps": [2], "blocks_max": 2, "seconds": 0.1}'
[ "$(sqlite3 "$scratch/short.db" "SELECT count(*) FROM v_events WHERE text LIKE 'no request at %'")" = 2 ] ||
    fail "a context without room for a request is not said"

# SIGINT: exit 130, the way to go on, and then the same content as an undisturbed run.
timeout --foreground 60 ./harness --config tests/driver/configs/small.json --out "" --db "$scratch/d.db" >"$scratch/out" 2>"$scratch/err" &
child=$!
sleep 0.6
kill -INT $child 2>/dev/null
wait $child
rc=$?
[ $rc = 130 ] || [ $rc = 0 ] || fail "SIGINT gave exit code $rc"
[ $rc = 0 ] || grep -q 'same command continues' "$scratch/err" || fail "no way to go on after SIGINT"
expect_exit 0 '' $run"" --db "$scratch/d.db"
same_content "$scratch/a.db" "$scratch/d.db"

# Another method later: only its own cells are computed, in the same run.
expect_exit 0 '' $run"" --db "$scratch/a.db" --methods exact,window
[ "$(sqlite3 "$scratch/a.db" 'SELECT count(*) FROM run')" = 1 ] || fail "a method more made another run"
exit $((failures > 0))
