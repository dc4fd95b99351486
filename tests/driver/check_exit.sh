#!/usr/bin/env bash
# Every exit code of docs/exit-codes.md happens as it is described there, and the page, the program's help and the code
# list the same ones. No message blames memory for a device, or a model for what a plug-in did.
. "$(dirname "$0")/lib.sh"

# ---- one list ----
page=$(sed -n 's/^| \([0-9]*\) | .*/\1/p' docs/exit-codes.md | sort -n | tr '\n' ' ')
code=$(sed -n 's/^ *MB_EXIT_[A-Z]* = \([0-9]*\).*/\1/p' driver/os/os.h | sort -n | tr '\n' ' ')
help=$(./harness --help | tr '\n' ' ' | sed 's/.*exit codes: //' | grep -oE '(^|, )[0-9]+ ' | tr -d ', \n' | sed 's/./& /g; s/1 3 0/130/')
[ "$page" = "$code" ] || fail "docs/exit-codes.md lists $page, driver/os/os.h $code"
[ "$(tr -d ' ' <<<"$page")" = "$(tr -d ' ' <<<"$help")" ] || fail "docs/exit-codes.md lists $page, --help $help"

# ---- each of them ----
run="./harness --config tests/driver/configs/small.json --limit 1 --set threads=1 --quiet --out"
expect_exit 0 '' $run "" --db "$scratch/a.db" --methods exact,quest --set 'passes=["quality"]'
expect_exit 1 'standard output could not be written' bash -c './harness list tasks >/dev/full'
expect_exit 1 '/dev/full' ./harness export "$scratch/a.db" --csv --out /dev/full
expect_exit 2 'unknown device "gpu9"' $run "" --db "$scratch/b.db" --device gpu9
grep -qi 'GiB\|memory\|max_length' "$scratch/err" && fail "a device name is told as lack of memory"
[ -e "$scratch/b.db" ] && [ "$(sqlite3 "$scratch/b.db" 'SELECT count(*) FROM run' 2>/dev/null)" != 0 ] && fail "bad input made a run"
mkdir "$scratch/data"
printf '{"input": "q"}\n' >"$scratch/data/trec.jsonl"
expect_exit 3 'samples failed' $run "" --db "$scratch/c.db" --methods exact --set 'passes=["quality"]' \
    --data "$scratch/data" --tasks trec
expect_exit 0 '' $run "" --db "$scratch/d.db" --methods exact --set 'passes=["quality"]'
expect_exit 4 '' ./harness compare "$scratch/a.db" "$scratch/d.db" --fail-below 1
# Before its database is open a run has nothing to continue and says nothing: later then, on a slow machine. One signal often
# arrives twice at once (timeout sends it to the run and to the group); only a later second one ends a run where it stands.
interrupt() { # PAUSE SECONDS: two signals, the second PAUSE after the first
    rm -f "$scratch/e.db"
    ./harness --config tests/driver/configs/small.json --set threads=1 --quiet --out "" --db "$scratch/e.db" >"$scratch/out" 2>"$scratch/err" &
    sleep $2; kill -INT $!; sleep $1; kill -INT $! 2>/dev/null; wait $!; rc=$?
}
for seconds in 0.7 2 5; do
    interrupt 0.01 $seconds
    grep -q 'the same command continues' "$scratch/err" && break
done
[ $rc = 130 ] && grep -q 'the same command continues' "$scratch/err" || { fail "SIGINT gave $rc"; cat "$scratch/err"; }
exit $((failures > 0))
