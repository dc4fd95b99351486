#!/usr/bin/env bash
# Redraws figures by hand from their data folder, as plots/README.md tells users to: gnuplot must say nothing, and the
# pictures must be the ones that the program drew. Also: every script says which view it reads, and is used.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=${BUILD:-build}/tests/results/test_plots
[ -x "$program" ] || { echo "$program is not built"; exit 1; }
for script in plots/*.gp; do
    name=$(basename "$script" .gp)
    [ "$name" = style ] && continue
    head -3 "$script" | grep -q 'view v_[a-z_]*' || { echo "$script does not name its view"; exit 1; }
    grep -q "\"$name\"" results/figures_*.c || { echo "$script is not drawn by anything"; exit 1; }
done
command -v gnuplot >/dev/null || { echo "gnuplot is not installed: skipped"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $program in /*) ;; *) program=$PWD/$program ;; esac
"$program" "$work/full.db" "$work/figures"
cd "$work/figures/fake/data"
for vars in accuracy_budget niah-mage counter_grid-mage-hit_rate speedup breakdown; do
    script=${vars%%-*}
    cp "../$vars.svg" "$work/before.svg"
    gnuplot -d -e "name='$vars'; format='svg'" "$script.gp" 2>"$work/said"
    [ ! -s "$work/said" ] || { echo "gnuplot on $vars: $(cat "$work/said")"; exit 1; }
    cmp "../$vars.svg" "$work/before.svg" || { echo "$vars is not the same when redrawn"; exit 1; }
done
echo "figures redrawn: the same"
