#!/usr/bin/env bash
# `make figures`: runs the demo from nothing and renews what README shows of it: docs/results/quick.csv, the table
# between README's markers, and the figure. Only from a clean commit, because the pictures name it.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -z "$(git status --porcelain)" ] || { echo "make figures: commit first: the pictures name the commit"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
./harness --config configs/quick.json --db "$work/quick.db" --out "$work/figures" --fresh
./harness report "$work/quick.db" --csv >docs/results/quick.csv
cp "$work"/figures/quick/accuracy_work.png docs/figures/quick_accuracy_work.png
bash tools/demo_table.sh docs/results/quick.csv >"$work/table"
awk -v table="$work/table" '
    /^<!-- demo table/ { print; while ((getline line < table) > 0) print line; skip = 1; next }
    /^<!-- end of demo table/ { skip = 0 }
    !skip { print }' README.md >"$work/README.md"
cp "$work/README.md" README.md
echo "renewed: README.md, docs/results/quick.csv, docs/figures/quick_accuracy_work.png"
