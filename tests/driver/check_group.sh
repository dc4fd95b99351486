#!/usr/bin/env bash
# Arms of a sample that decode together: the rows of the arms alone, also after a group that was lost in part; no
# times; the gate that compares them is stored.
. "$(dirname "$0")/lib.sh"
cat >"$scratch/config.json" <<JSON
{"name": "group", "seed": 3, "model": "models/tiny", "max_new_tokens": 32, "passes": ["quality"],
 "tasks": [{"task": "niah_multikey", "lengths": [256], "depths": [0], "samples": 1}],
 "methods": {"exact": {}, "mage": {"k": [16, 64]}, "quest": {"k": 64}}, "sampler": {"schedule": "fixed", "steps": 2}}
JSON
run="./harness --config $scratch/config.json --quiet --set plots=\"\""
rows() { sqlite3 -readonly "$1" 'SELECT config, item, status, score, prediction, new_tokens, denoise_forwards, engaged, work_attend, work_select FROM v_samples ORDER BY config, item'; }
same_rows() { diff <(rows "$1") <(rows "$2") >"$scratch/diff" || { fail "$1 and $2 differ"; head -5 "$scratch/diff"; }; }
expect_exit 0 '' $run --db "$scratch/alone.db"
expect_exit 0 '' $run --db "$scratch/group.db" --set decode.group=3
[ "$(rows "$scratch/alone.db" | wc -l)" = 4 ] || fail "four rows were expected"
same_rows "$scratch/alone.db" "$scratch/group.db"
[ "$(sqlite3 "$scratch/group.db" "SELECT verdict FROM gate WHERE name = 'company does not matter'")" = pass ] || fail "no gate of the company"
[ "$(sqlite3 "$scratch/group.db" 'SELECT count(decode_us) FROM sample')" = 0 ] || fail "a group has times of single arms"
sqlite3 "$scratch/group.db" "DELETE FROM sample WHERE id IN (SELECT sample_id FROM v_samples WHERE config LIKE 'mage%'); UPDATE gate SET verdict = 'fail' WHERE name = 'company does not matter'"
expect_exit 4 '' $run --db "$scratch/group.db" --set decode.group=3 # a red gate stays red
same_rows "$scratch/alone.db" "$scratch/group.db"
# A run that is killed goes on with what its last whole group had stored.
$run --db "$scratch/killed.db" --set decode.group=2 2>/dev/null & child=$!
for i in $(seq 100); do
    [ "$(sqlite3 -readonly "$scratch/killed.db" 'SELECT count(*) FROM sample' 2>/dev/null || echo 0)" -ge 2 ] && break
    sleep 0.03
done
kill -KILL $child 2>/dev/null; wait $child 2>/dev/null
expect_exit 0 '' $run --db "$scratch/killed.db" --set decode.group=2
same_rows "$scratch/alone.db" "$scratch/killed.db"
# Workers hand the gate on.
expect_exit 0 '' $run --db "$scratch/devices.db" --set decode.group=2 --devices cpu
same_rows "$scratch/alone.db" "$scratch/devices.db"
[ "$(sqlite3 "$scratch/devices.db" "SELECT verdict FROM gate WHERE name = 'company does not matter'")" = pass ] || fail "a worker's gate is lost"
# The plan says what an arm has of its own. On the CPU auto is one after the other: nothing is won there.
expect_exit 0 '' $run --db "$scratch/plan.db" --set decode.group=3 --dry-run
grep -qE '^groups +3 arms .* [0-9.]+ MiB for an answer of up to 32 tokens' "$scratch/out" || fail "the plan has no line of the groups"
expect_exit 0 '' $run --db "$scratch/plan.db" --set decode.group=auto --device cpu --dry-run
! grep -q '^groups' "$scratch/out" || fail "auto decodes together on the CPU"
expect_exit 2 'decode.group must be a whole number or "auto"' $run --db "$scratch/plan.db" --set decode.group=many
exit $((failures > 0))
