#!/usr/bin/env bash
# Builds the method as a plug-in, runs it beside the exact one, and checks what must hold for any method. Run it from
# where harness runs; HARNESS names the program, CC the compiler.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
harness=${HARNESS:-harness}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() { echo "FAILED: $*"; exit 1; }
query() { sqlite3 -readonly "$scratch/$1.db" "$2"; }

flags=$(pkg-config --cflags maskbench)
${CC:-cc} -std=c11 -Wall -Wextra -Werror -O2 -fPIC -shared $flags -o "$scratch/example.so" "$here/example.c"

for run in first second; do
    "$harness" --plugin "$scratch/example.so" --config "$here/example.json" --device cpu --quiet --out "" \
        --db "$scratch/$run.db" || fail "the run ended with exit code $?"
done

# Every sample has a result; a failure says method, layer and step.
failures=$(query first "SELECT DISTINCT reason FROM v_failures")
[ -z "$failures" ] || fail "$failures"

# With a budget above the prompt's length nothing is left out, so every answer is that of exact attention.
different=$(query first "SELECT count(*) FROM v_samples e JOIN v_samples m USING (pass, item)
    WHERE e.method = 'exact' AND m.method = 'example' AND m.k = 1000000 AND e.prediction <> m.prediction")
[ "$different" = 0 ] || fail "$different answers differ from exact attention at a full budget"

# A larger budget costs more work and captures no less attention.
query first "SELECT k, avg(work) FROM v_samples WHERE method = 'example' AND pass = 'quality' GROUP BY k ORDER BY k" \
    >"$scratch/work"
sort -t '|' -g -k 2 -c "$scratch/work" || fail "more budget, less work: $(tr '\n' ' ' <"$scratch/work")"
query first "SELECT k, avg(captured_mass) FROM v_recall WHERE method = 'example' GROUP BY k ORDER BY k" >"$scratch/mass"
[ -s "$scratch/mass" ] || fail "no recall was measured"
sort -t '|' -g -k 2 -c "$scratch/mass" || fail "more budget, less mass: $(tr '\n' ' ' <"$scratch/mass")"

# Same seed, same rows.
content() { query "$1" "SELECT * FROM v_content" | LC_ALL=C sort; }
diff <(content first) <(content second) >/dev/null || fail "two runs with one seed differ"
echo "ok: example"
