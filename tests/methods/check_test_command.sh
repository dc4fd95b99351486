#!/usr/bin/env bash
# ./harness test: a sound configuration passes, each planted fault is named with its configuration and case, a crash is
# one failure and not the program's, and what is wrong with the call is said.
. "$(dirname "$0")/../driver/lib.sh"
build=${BUILD:-build}
plugin=$build/plugins/faults/faulty.so

rc=0
./harness test "$plugin" >"$scratch/out" 2>"$scratch/err" || rc=$?
[ $rc = 1 ] || fail "faults end with $rc, not 1"
for line in '^  ok      as given$' '^  ok      as given, bf16$' '^  FAILED  fault=one_short$' '^  FAILED  fault=equal$' '^  FAILED  fault=crash$' \
    "budgets at the context's length: k = 74 of 75 tokens: more than the budget" \
    "budgets at the context's length: k = 75 of 75 tokens: differs from exact attention" \
    'the method crashed: Segmentation fault' '^5 configurations, .* checks: .* failed$'; do
    grep -qE "$line" "$scratch/out" || { fail "no line like /$line/"; cat "$scratch/out"; }
done
expect_exit 2 'no method is named "quset"; did you mean quest\?' ./harness test quset
expect_exit 2 'has no option "kk"; did you mean k\?' ./harness test quest --set kk=3
expect_exit 2 'test which method' ./harness test
expect_exit 2 'nowhere.so' ./harness test nowhere.so
expect_exit 0 '' ./harness test exact -q
[ "$(cat "$scratch/out")" = '2 configurations, 20 checks: all passed' ] || { fail "test exact -q says more"; cat "$scratch/out"; }
exit $((failures > 0))
