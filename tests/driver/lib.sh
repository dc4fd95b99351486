# lib.sh - shared by the end-to-end checks: a scratch folder, assertions that print what differed.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# expect_exit CODE PATTERN COMMAND...: exit code, and a line on standard error that matches the pattern (one
# sentence, no more than two lines of it).
expect_exit() {
    local code=$1 pattern=$2 rc=0; shift 2
    timeout 600 "$@" >"$scratch/out" 2>"$scratch/err" || rc=$?
    [ $rc = "$code" ] || { fail "$* exited $rc, not $code"; tail -3 "$scratch/err"; return; }
    [ -z "$pattern" ] || grep -qE -- "$pattern" "$scratch/err" || { fail "$*: no message like /$pattern/"; tail -3 "$scratch/err"; }
}

# Everything stored but times, in a fixed order.
content() { sqlite3 -readonly "$1" 'SELECT * FROM v_content' | LC_ALL=C sort; }
same_content() { diff <(content "$1") <(content "$2") >"$scratch/diff" || { fail "$1 and $2 differ"; head -5 "$scratch/diff"; }; }
