#!/usr/bin/env bash
# Plans: memory is planned for the options that are asked for; --dry-run lists every pass with its time and memory
# before a checkpoint is there; what cannot fit is refused before weights are drawn or loaded.
. "$(dirname "$0")/lib.sh"
query() { sqlite3 -readonly "$1" "$2"; }
printf 'alpha beta\n' >"$scratch/prompt"

# generate plans for the k that --set gives, not for the default one.
for method in mage losa; do
    expect_exit 0 '' ./harness generate --model models/tiny --prompt "$scratch/prompt" --method $method --set k=1000000 \
        --max-new-tokens 8
done

exit $((failures > 0))
