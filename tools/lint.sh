#!/usr/bin/env bash
# The rules that a machine can check: clang-format, clang-tidy (see .clang-tidy) and the rooms' walls
# (tests/driver/check_modules.sh). clang-format 14 lays out this tree; another version lays out some lines otherwise,
# so it is left out there, and the last line says so.
set -u
cd "$(dirname "$0")/.."
build=${BUILD:-build}
bad=0
files() { if [ -d .git ] || [ -f .git ]; then git ls-files -- "$@"; else find . -name '*.c' -o -name '*.h' | sed 's|^\./||'; fi; }

note=
if clang-format --version 2>/dev/null | grep -q 'version 14\.'; then
    # The device code keeps its authors' layout: tables of tiles do not survive a formatter.
    files '*.c' '*.h' | grep -vE '^(kernels/cuda|tests/cuda)/' | xargs clang-format --dry-run -Werror || bad=1
else
    note="; clang-format 14 is not here, so the layout was not checked"
fi
command -v clang-tidy >/dev/null || { echo "lint: install the package clang-tidy"; exit 1; }
files 'base/*.c' 'kernels/*.c' 'kernels/cpu/*.c' 'methods/*.c' 'model/*.c' 'datasets/*.c' 'results/*.c' 'properties/*.c' 'training/*.c' 'driver/*.c' |
    grep -vE '^kernels/cuda/' |
    xargs -P "$(nproc)" -n 12 sh -c 'clang-tidy --quiet "$@" -- -std=c11 -D_GNU_SOURCE -I. -I'"$build"'/generated 2>/dev/null' _ |
    grep -E '(error|warning):' && bad=1
bash tests/driver/check_modules.sh || bad=1
[ $bad = 0 ] && echo "lint: clean$note"
exit $bad
