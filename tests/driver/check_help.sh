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
expect_exit 2 'unknown command "lsit"; did you mean list\?' ./harness lsit
expect_exit 2 'unknown command "telepathy"; \./harness --help' ./harness telepathy
expect_exit 2 'unknown flag --dry-rnu; did you mean --dry-run\?' ./harness --dry-rnu
expect_exit 2 'unknown flag --sede=3; did you mean --seed\?' ./harness --sede=3
exit $((failures > 0))
