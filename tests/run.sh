#!/usr/bin/env bash
# Runs the given test programs (under $RUNNER, if set) and scripts; prints one line each and the closing count. Exit 1 if any failed.
set -u
passed=0; failed=0; names=()
for t in "$@"; do
    log=$(mktemp)
    start=$(date +%s%N)
    case $t in *.sh) bash "$t" >"$log" 2>&1 ;; *) ${RUNNER:-} "$t" >"$log" 2>&1 ;; esac
    rc=$?
    ms=$((($(date +%s%N) - start) / 1000000))
    if [ $rc = 0 ]; then passed=$((passed + 1)); printf 'ok      %6d ms  %s\n' $ms "$t"
    else failed=$((failed + 1)); names+=("$t"); printf 'FAILED  %6d ms  %s (exit %d)\n' $ms "$t" $rc; cat "$log"; fi
    rm -f "$log"
done
for n in ${names[@]+"${names[@]}"}; do echo "failed: $n"; done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
