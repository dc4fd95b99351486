#!/usr/bin/env bash
# `make figures`: runs configs/quick.json from nothing and renews what README shows of it: docs/results/quick.csv and the
# table between README's markers; and configs/lead.json for README's picture. Only from a clean commit, because the
# picture names it. `make figures ONLY=lead`: the picture alone.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -z "$(git status --porcelain)" ] || { echo "make figures: commit first: the pictures name the commit"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
./harness --config configs/lead.json --db "$work/lead.db" --fresh
mkdir -p docs/figures
cp "$(./harness plot "$work/lead.db" --figure accuracy_work --format png --out "$work/figures")" docs/figures/lead_accuracy_work.png
echo "renewed: docs/figures/lead_accuracy_work.png"
[ "${ONLY:-}" != lead ] || exit 0
./harness --config configs/quick.json --db "$work/quick.db" --out "$work/figures" --fresh
./harness report "$work/quick.db" --csv >docs/results/quick.csv
bash tools/demo_table.sh docs/results/quick.csv >"$work/table"
awk -v table="$work/table" '
    /^<!-- demo table/ { print; while ((getline line < table) > 0) print line; skip = 1; next }
    /^<!-- end of demo table/ { skip = 0 }
    !skip { print }' README.md >"$work/README.md"
cp "$work/README.md" README.md
echo "renewed: README.md, docs/results/quick.csv"
