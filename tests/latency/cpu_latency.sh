#!/usr/bin/env bash
# A method that is busy for 50 ms, on the CPU: prints what the latency pass reports for it. Timed, so no part of
# `make check`; within 10 % on a machine that does nothing else.
set -eu
cd "$(dirname "$0")/../.."
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
${CC:-cc} -std=c11 -D_GNU_SOURCE -O2 -fPIC -shared -I. -o "$out/busy.so" tests/latency/busy_method.c
${HARNESS:-./harness} --config tests/latency/busy.json --device cpu --quiet --fresh --out "" --db "$out/busy.db" --plugin "$out/busy.so"
python3 tests/latency/steps.py "$out/busy.db" added busy 0.1
