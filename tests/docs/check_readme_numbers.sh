#!/usr/bin/env bash
# README's table of the demo says what docs/results/quick.csv says, to the last digit that it shows.
set -euo pipefail
cd "$(dirname "$0")/../.."
want=$(bash tools/demo_table.sh docs/results/quick.csv)
have=$(awk '/^<!-- demo table/ { on = 1; next } /^<!-- end of demo table/ { on = 0 } on' README.md)
[ "$(printf '%s\n' "$want" | wc -l)" -gt 10 ] || { echo "docs/results/quick.csv has no results"; exit 1; }
diff <(printf '%s\n' "$want") <(printf '%s\n' "$have") || { echo "README's numbers are not those of docs/results/quick.csv: make figures"; exit 1; }
