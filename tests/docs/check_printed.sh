#!/usr/bin/env bash
# Every command that README and the docs print in a block is run: here as printed, by a test that tests/docs/printed.tsv
# names, or it stands there with the reason why not. A command that is printed nowhere any more has no line.
. "$(dirname "$0")/../driver/lib.sh"
root=$PWD
awk '/^ *```/ { inside = !inside; next } inside || /^    [^ ]/' README.md docs/*.md configs/README.md results/README.md paper/README.md \
    datasets/README.md | sed -E 's/^ +//; s/ +#.*//; s/ +$//' |
    grep -E '^(\./harness|make|bash|sqlite3|python3|datasette) ' | sort -u >"$scratch/printed"
[ "$(wc -l <"$scratch/printed")" -gt 50 ] || fail "hardly any printed command was found"
grep -v '^#' tests/docs/printed.tsv | cut -f 2 | sort >"$scratch/known"
comm -23 "$scratch/printed" "$scratch/known" | while read -r line; do echo "no line of printed.tsv says what runs: $line"; done | tee "$scratch/new"
comm -13 "$scratch/printed" "$scratch/known" | while read -r line; do echo "printed.tsv has what is printed nowhere: $line"; done | tee "$scratch/old"
[ -s "$scratch/new" ] || [ -s "$scratch/old" ] && fail "printed commands and printed.tsv differ"

mkdir -p "$scratch/tree/results" && cd "$scratch/tree" || exit 1
ln -s "$root/harness" "$root/configs" "$root/models" "$root/datasets" "$root/build" "$root/methods" . && cp -R "$root/paper" .
ln -s "$root/results/queries" results/
cat >tiny.json <<'JSON'
{"name": "tiny", "model": "models/tiny", "plots": "", "threads": 1,
 "tasks": [{"task": "niah_single", "lengths": [256], "depths": [50], "samples": 2, "max_new_tokens": 32}],
 "methods": {"exact": {}, "window": {"k": 32}}, "sampler": {"schedule": "fixed", "steps": 2}, "passes": ["quality", "recall"]}
JSON
"$root/harness" --config tiny.json --quiet --db results/quick.db >log 2>&1 || { fail "the small run"; tail -3 log; }
while IFS=$'\t' read -r how command detail; do
    filled=${command//FILE/tiny.json} && filled=${filled//COMMAND/report}
    rc=0
    case $how in
    run) bash -c "$filled" >log 2>&1 </dev/null || rc=$?
        [ $rc = 0 ] && [ -s log ] || { fail "$command: exit code $rc"; tail -3 log; } ;;
    dry) bash -c "$filled --dry-run" >log 2>&1 </dev/null || rc=$?
        [ $rc = 0 ] || { fail "$command --dry-run: exit code $rc"; tail -3 log; } ;;
    refused) bash -c "$filled" >log 2>&1 </dev/null || rc=$?
        [ $rc = 2 ] && grep -qE -- "$detail" log || { fail "$command: exit code $rc"; tail -3 log; } ;;
    test) awk '/^```sh$/ { on = 1; next } /^```$/ { on = 0 } on' "$root/$detail" | grep -qF -- "$command" ||
        fail "$detail has no block that is run with: $command" ;;
    not) [ -n "$detail" ] || fail "no reason why nothing runs: $command" ;;
    *) fail "printed.tsv: $how is no way to run a command" ;;
    esac
done < <(grep -v '^#' "$root/tests/docs/printed.tsv")
exit $((failures > 0))
