#!/usr/bin/env bash
# Output that was not written is a failure; a reader that leaves is none; --out writes into what is no regular file.
. "$(dirname "$0")/lib.sh"
db=$scratch/a.db
./harness --config tests/driver/configs/small.json --out "" --db "$db" --limit 1 --quiet 2>/dev/null || fail "the run failed"
for command in "export $db --csv" "report $db" "list methods" "list runs $db" "--help" "--version" "help mage"; do
    rc=0; ./harness $command >/dev/full 2>"$scratch/err" || rc=$?
    [ $rc = 1 ] || fail "$command on a full disk: exit code $rc"
    grep -q 'standard output could not be written' "$scratch/err" || fail "$command on a full disk says nothing"
    ./harness $command 2>"$scratch/err" | head -c 1 >/dev/null
    [ "${PIPESTATUS[0]}" = 0 ] || fail "$command | head: exit code ${PIPESTATUS[0]}"
    [ -s "$scratch/err" ] && { fail "$command | head complains"; cat "$scratch/err"; }
done
rc=0; ./harness export "$db" --csv --out /dev/full 2>"$scratch/err" || rc=$?
[ $rc = 1 ] || fail "--out on a full disk: exit code $rc"

./harness export "$db" --csv >"$scratch/whole.csv"
mkfifo "$scratch/fifo"; cat "$scratch/fifo" >"$scratch/read.csv" & reader=$!
./harness export "$db" --csv --out "$scratch/fifo" >/dev/null || fail "--out of a FIFO failed"
[ -p "$scratch/fifo" ] || { fail "--out replaced a FIFO"; : >"$scratch/fifo"; }
wait $reader
cmp "$scratch/whole.csv" "$scratch/read.csv" || fail "a FIFO got something else"
mkdir "$scratch/there"; echo old >"$scratch/there/file"; ln -s there/file "$scratch/link"; ln -s there/new "$scratch/dangling"
for name in link dangling; do
    ./harness export "$db" --csv --out "$scratch/$name" >/dev/null || fail "--out of a symlink failed"
    [ -L "$scratch/$name" ] || fail "--out replaced a symlink"
    cmp "$scratch/whole.csv" "$scratch/$name" || fail "a symlink's target got something else"
done

# A name from outside is shown, and neither obeyed by the terminal nor a line of its own.
bad=$'a\nharness: all is well\e[31m'
mkdir -p "$scratch/$bad/pred" "$scratch/$bad/models/$bad"
echo '{"pred": "x", "answers": ["x"], "length": 1, "all_classes": null}' | tee "$scratch/$bad/pred/qasper.jsonl" >"$scratch/$bad/pred/$bad.jsonl"
echo nothing >"$scratch/$bad/models/$bad/config.json"
sqlite3 "$scratch/$bad/blank.db" 'PRAGMA user_version = 0'
sed "s|^{|{\"name\": \"a\\\\nharness: all is well\\\\u001b[31m\",|" tests/driver/configs/small.json >"$scratch/$bad/named.json"
shown() { # COMMAND...: what it prints on both streams
    rc=0; "$@" >"$scratch/both" 2>&1 || rc=$?
    grep -aq $'\e' "$scratch/both" && fail "$*: a terminal would obey its output"
    grep -aq '^harness: all is well' "$scratch/both" && fail "$*: a name became a line"
    grep -aqF 'a\x0aharness: all is well\x1b[31m' "$scratch/both" || { fail "$* does not show the name"; head -3 "$scratch/both"; }
}
shown ./harness score "$scratch/$bad/pred"
shown ./harness score "$scratch/$bad"
shown ./harness list models --model "$scratch/$bad/models"
shown ./harness merge "$scratch/all.db" "$db" "$scratch/$bad/blank.db"
shown ./harness merge "$scratch/all.db" "$scratch/$bad/none.db"
shown ./harness export "$db" --pred "$scratch/$bad/out"
shown ./harness plot "$db" --out "$scratch/$bad/figures"
shown ./harness "$bad"
shown ./harness --config "$scratch/$bad/named.json" --dry-run --db "$scratch/$bad/x.db" --out ""
shown ./harness --config "$scratch/$bad/none.json"
shown ./harness slurm --config "$scratch/$bad/named.json" --shards 2 --partition p --dry-run
exit $((failures > 0))
