#!/usr/bin/env bash
# What the program says about itself: the usage, the help of every command, guesses at mistyped words. All of it comes
# from the tables of commands and flags, so each row is looked at, and none by name.
. "$(dirname "$0")/lib.sh"

./harness >"$scratch/alone" || fail "./harness alone exits $?"
./harness --help >"$scratch/usage"
diff "$scratch/alone" "$scratch/usage" >/dev/null || fail "./harness alone is not ./harness --help"
mapfile -t commands < <(sed -n '/^commands$/,/^$/s/^  \([a-z-]*\) .*/\1/p' "$scratch/usage")
[ ${#commands[@]} -gt 10 ] || fail "the usage lists ${#commands[@]} commands"
for command in "${commands[@]}"; do
    ./harness "$command" --help >"$scratch/one" || fail "$command --help exits $?"
    grep -q "^usage: ./harness $command" "$scratch/one" || fail "$command --help has no usage"
    ./harness help "$command" | diff - "$scratch/one" >/dev/null || fail "help $command is not $command --help"
    # Every flag that the help names is taken there: a value is missing, or the command says what else it lacks.
    for flag in $(sed -n '/^flags$/,/^$/s/^  \(--[a-z-]*\).*/\1/p' "$scratch/one"); do
        ./harness "$command" "$flag" 1 --version >"$scratch/two" 2>&1 || fail "$command does not take its own flag $flag"
    done
done
[ "$(awk 'length > 160' "$scratch/usage" | wc -l)" = 0 ] || fail "a line of the usage is too long"
# ---- manual page and completions: every command and flag is in them, and shells read them ----
./harness man >"$scratch/man"
for shell in bash zsh fish; do ./harness completion $shell >"$scratch/$shell" || fail "completion $shell"; done
for word in "${commands[@]}"; do
    for file in man bash zsh fish; do
        sed 's/\\-/-/g' "$scratch/$file" | grep -q -- "$word" || fail "$file lacks the command $word"
    done
done
for flag in $(./harness run --help | grep -oE '^  --[a-z-]+' | sort -u); do
    sed 's/\\-/-/g' "$scratch/man" | grep -q -- "$flag" || fail "the manual page lacks $flag"
    grep -q -- "$flag " "$scratch/bash" || fail "bash does not complete $flag"
    grep -q -- "-l ${flag#--} " "$scratch/fish" || fail "fish does not complete $flag"
done
bash -n "$scratch/bash" || fail "bash cannot read its completion"
completes() { # words on the line -> what the last one may become
    (. "$scratch/bash"; COMP_WORDS=(./harness "$@"); COMP_CWORD=$#; _harness; echo " ${COMPREPLY[*]} ")
}
[[ $(completes re) == *' report '* ]] || fail "re is not completed to report"
[[ $(completes report --f) == *' --format '* ]] || fail "report --f is not completed"
[[ $(completes report --fre) != *' --fresh '* ]] || fail "report completes a flag of run"
[[ $(completes help ma) == *' mage '* ]] || fail "help ma is not completed"
if command -v mandoc >/dev/null; then mandoc -T lint -W error "$scratch/man" >"$scratch/lint" || { fail "manual page"; head -3 "$scratch/lint"; }
elif command -v man >/dev/null; then MANWIDTH=80 man --warnings -l "$scratch/man" >/dev/null 2>"$scratch/lint"; [ ! -s "$scratch/lint" ] || { fail "manual page"; head -3 "$scratch/lint"; }; fi
for shell in zsh fish; do ! command -v $shell >/dev/null || $shell -n "$scratch/$shell" || fail "$shell cannot read its completion"; done

# ---- lists ----
for kind in methods tasks models configs shapes figures; do
    ./harness list $kind >"$scratch/plain" && [ -s "$scratch/plain" ] || fail "list $kind"
    ./harness list $kind --csv >"$scratch/csv"
    ./harness list $kind --jsonl >"$scratch/jsonl"
    python3 - "$scratch/csv" "$scratch/jsonl" <<'PY' || fail "list $kind --csv and --jsonl differ"
import csv, json, sys
rows = list(csv.DictReader(open(sys.argv[1], newline="")))
sys.exit(not rows or rows != [json.loads(line) for line in open(sys.argv[2])])
PY
done
expect_exit 2 'did you mean shapes\?' ./harness list shaps
expect_exit 0 '' ./harness run -v --config paper/tiny/needles.json --methods exact --db "$scratch/v.db"
grep -q 'niah_single len512_depth50_0, exact: score' "$scratch/err" || fail "run -v has no line for a sample"
expect_exit 0 '' ./harness --version
grep -q '^libraries  SQLite ' "$scratch/out" || fail "--version names no libraries"
grep -q '^CUDA ' "$scratch/out" || fail "--version does not say whether there is CUDA"

expect_exit 2 'unknown command "lsit"; did you mean list\?' ./harness lsit
expect_exit 2 'unknown command "telepathy"; \./harness --help' ./harness telepathy
expect_exit 2 'unknown flag --dry-rnu; did you mean --dry-run\?' ./harness --dry-rnu
expect_exit 2 'unknown flag --sede=3; did you mean --seed\?' ./harness --sede=3
# Every config of the tree is a run's or a training's, and none has a problem.
./harness list configs >"$scratch/configs"
head -1 "$scratch/configs" | grep -qE '^path +name +kind +runs +arms +tasks +problem$' || fail "list configs has no head"
grep -q ' $' "$scratch/configs" && fail "list configs has blanks at a line's end"
awk 'NR == 1 { at = index($0, "kind") } /configs\// && substr($0, at - 1, 2) !~ /^ [rt]/ { bad = 1 } END { exit bad }' "$scratch/configs" ||
    fail "list configs has no columns"
./harness list configs --jsonl >"$scratch/configs"
grep -q 'configs/train_tiny.json", "name": "train_tiny", "kind": "training"' "$scratch/configs" || fail "list configs does not know a training"
[ "$(grep -c '"kind": "run".*"problem": ""' "$scratch/configs")" -ge 10 ] || fail "list configs lacks runs"
[ "$(grep -vc '"problem": ""' "$scratch/configs")" = 0 ] || fail "list configs shows problems"
exit $((failures > 0))
