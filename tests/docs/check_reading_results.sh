#!/usr/bin/env bash
# docs/reading-results.md, executed: every fenced sh block in order, on the files of two runs of a few seconds.
. "$(dirname "$0")/../driver/lib.sh"
root=$PWD
mkdir -p "$scratch/work/results"
cat >"$scratch/tiny.json" <<'JSON'
{"name": "quick", "model": "models/tiny", "plots": "", "threads": 1, "record": {"selections": 1},
 "tasks": [{"task": "niah_single", "lengths": [256], "depths": [50], "samples": 2, "max_new_tokens": 32}],
 "methods": {"exact": {}, "window": {"k": 32}}, "sampler": {"schedule": "fixed", "steps": 2},
 "passes": ["quality", "recall"]}
JSON
expect_exit 0 '' ./harness --config "$scratch/tiny.json" --quiet --db "$scratch/work/results/quick.db"
cp "$scratch/work/results/quick.db" "$scratch/work/results/before.db"
cp "$scratch/work/results/quick.db" "$scratch/work/results/after.db"
ln -s "$root/harness" "$root/python" "$scratch/work/"
awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' docs/reading-results.md >"$scratch/commands.sh"
[ "$(grep -c . "$scratch/commands.sh")" -ge 8 ] || fail "hardly any command was found in docs/reading-results.md"
(cd "$scratch/work" && timeout 120 bash -eux "$scratch/commands.sh") >"$scratch/log" 2>&1 ||
    { fail "a command of docs/reading-results.md failed"; tail -20 "$scratch/log"; }
grep -q 'window k=32: +0.0 ±0.0 points, 0 items lost, 0 won of 2' "$scratch/log" || fail "no verdict of equal runs"
grep -q '</html>' "$scratch/work/results/quick.html" || fail "the page has no end"
grep -q '<svg' "$scratch/work/results/quick.html" || fail "the page has no figure"
grep -qE '<summary>prompt, [0-9]+ tokens</summary>' "$scratch/work/results/quick.html" || fail "the page has no prompt to open"
grep -qE '(src|href)=["'"'"']?(https?:|//)|@import|url\(["'"'"']?http' "$scratch/work/results/quick.html" && fail "the page loads something"
# In a browser: the script runs, a click sorts, an item opens, nothing is loaded.
{ cat "$scratch/work/results/quick.html"; cat <<'HTML'
<script>
const head = document.querySelector("th.n"), column = head.cellIndex, body = head.closest("table").tBodies[0];
head.click(); head.click();
const values = Array.from(body.rows, row => parseFloat(row.cells[column].textContent)).filter(v => !isNaN(v));
const item = document.querySelector("details details");
item.parentElement.open = item.open = true;
document.title = [values.every((v, i) => i === 0 || values[i - 1] >= v) && values.length > 1 ? "sorted" : "unsorted " + values,
    item.querySelector("pre").offsetHeight > 20 ? "opened" : "shut", document.querySelectorAll("svg").length > 0 ? "drawn" : "bare",
    performance.getEntriesByType("resource").length === 0 ? "alone" : "loads"].join(" ");
</script>
HTML
} >"$scratch/page.html"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    echo "skipped: the page in Chromium: no chromium here"
else
    HOME="$scratch" timeout 60 "$browser" --headless --no-sandbox --disable-gpu --dump-dom "file://$scratch/page.html" >"$scratch/dom" 2>"$scratch/browser"
    grep -q '<title>sorted opened drawn alone</title>' "$scratch/dom" || { fail "the page in $browser"; grep -m1 '<title>' "$scratch/dom"; tail -3 "$scratch/browser"; }
    HOME="$scratch" timeout 60 "$browser" --headless --no-sandbox --disable-gpu --print-to-pdf="$scratch/page.pdf" "file://$scratch/work/results/quick.html" >"$scratch/browser" 2>&1
    [ "$(head -c 4 "$scratch/page.pdf" 2>/dev/null)" = %PDF ] || { fail "no PDF of the page"; tail -3 "$scratch/browser"; }
fi
# Firefox prints no document; it takes a picture. The page turns green where all of the above holds, red otherwise.
firefox=$(command -v firefox-esr || command -v firefox || true)
if [ -z "$firefox" ]; then
    echo "skipped: the page in Firefox: no firefox here"
else
    { cat "$scratch/page.html"; cat <<'HTML'
<script>
const verdict = document.title === "sorted opened drawn alone" ? "#00a000" : "#a00000";
document.body.replaceChildren();
document.documentElement.style.background = document.body.style.background = verdict;
</script>
HTML
    } >"$scratch/verdict.html"
    mkdir "$scratch/profile"
    HOME="$scratch" timeout 120 "$firefox" --headless --no-remote --profile "$scratch/profile" --window-size=400,300 \
        --screenshot "$scratch/verdict.png" "file://$scratch/verdict.html" >"$scratch/browser" 2>&1
    python3 - "$scratch/verdict.png" <<'PY' || { fail "the page in $firefox"; tail -3 "$scratch/browser"; }
import struct, sys, zlib
data = open(sys.argv[1], "rb").read()
at, body = 8, b""
while at < len(data):
    size, kind = struct.unpack(">I4s", data[at:at + 8])
    if kind == b"IHDR":
        width, height, depth, colour = struct.unpack(">IIBB", data[at + 8:at + 18])
    body += data[at + 8:at + 8 + size] if kind == b"IDAT" else b""
    at += 12 + size
first = zlib.decompress(body)[:4]  # the first row's filter and first pixel, which every filter leaves as it is
assert depth == 8 and colour in (2, 6) and tuple(first[1:]) == (0, 0xa0, 0), (width, height, first)
PY
fi

[ "$(ls "$scratch"/work/results/lm_eval/*/results_*.json | wc -l)" = 2 ] || fail "not one file a configuration for lm-evaluation-harness"
[ "$(sqlite3 "$scratch/work/results/quick-old.db" "SELECT count(*) FROM sqlite_master WHERE sql LIKE '%) STRICT%'")" = 0 ] || fail "the copy for old SQLite is STRICT"
grep -qE '^layer +[0-9]+ .*█' "$scratch/log" || fail "no map of selected keys"
grep -q '▼.*a reference answer' "$scratch/log" || fail "the answer's place is not marked"
grep -q '^block 0 step 2, 16 masked: ' "$scratch/log" || fail "no steps"
[ -s "$scratch/work/results/item/selection-niah_single-len256_depth50_0.svg" ] || fail "no figure of the selected keys"
grep -qE '^window k=32 +niah_single +[0-9.]+ +n = 2' "$scratch/log" || fail "the Python reader does not print a score"
grep -qE '^window k=32, layer [0-9]+: head 0 reads pages \[0' "$scratch/log" || fail "the Python reader does not decode pages"
# Every prepared query of Datasette's metadata runs.
python3 - "$scratch/work/results/quick.db" <<'PY' || fail "results/datasette.json has a query that does not run"
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
queries = json.load(open("results/datasette.json"))["databases"]["quick"]["queries"]
assert len(queries) == 4
for query in queries.values():
    db.execute(query["sql"]).fetchall()
PY
expect_exit 2 'the run has no item "nowhere"; it has niah_single:len256_depth50_0' ./harness show "$scratch/work/results/quick.db" nowhere

# Every format is read by a program of its kind, also when labels and answers hold what the formats use themselves.
cp "$scratch/work/results/quick.db" "$scratch/odd.db"
sqlite3 "$scratch/odd.db" "UPDATE config SET label = 'w|x, \"y\" & \$k\$_#% {~^\\} <b> 中é' WHERE label LIKE 'window%';
    UPDATE sample SET prediction = '\\end{verbatim} ' || char(96, 96, 96) || ' 中 ▶ ± & % ' || char(27) || '[31m'"
for format in csv jsonl md latex; do
    expect_exit 0 '' ./harness report "$scratch/odd.db" --full --format $format --out "$scratch/odd.$format"
    expect_exit 0 '' ./harness report "$scratch/work/results/quick.db" --full --format $format --out "$scratch/plain.$format"
done
expect_exit 0 '' ./harness show "$scratch/odd.db" len256_depth50_0 --full --format latex --out "$scratch/item.latex"
python3 - "$scratch" <<'PY' || fail "csv, jsonl or md is not read"
import csv, json, re, sys
label = 'w|x, "y" & $k$_#% {~^\\} <b> 中é'
for name in ("plain", "odd"):
    rows = list(csv.DictReader(open(f"{sys.argv[1]}/{name}.csv", newline="", encoding="utf-8")))
    lines = [json.loads(line) for line in open(f"{sys.argv[1]}/{name}.jsonl", encoding="utf-8")]
    assert len(rows) == len(lines) == 4, (len(rows), len(lines))
    for row, line in zip(rows, lines):
        assert None not in row and list(row) == list(line)
        for key, value in line.items():
            same = row[key] == ("" if value is None else value) if not isinstance(value, (int, float)) else float(row[key]) == value
            assert same, (key, value, row[key])
    assert {row["config"] for row in rows} == {"exact", "window k=32" if name == "plain" else label}
    tables = re.findall(r"(?:^\|.*\n)+", open(f"{sys.argv[1]}/{name}.md", encoding="utf-8").read(), re.M)
    assert len(tables) > 1, tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
PY
if ! command -v pdflatex >/dev/null || ! kpsewhich booktabs.sty >/dev/null; then
    echo "skipped: the LaTeX output compiled: no pdflatex with booktabs here"
else
    for part in plain odd item; do
        printf '%s\n' '\documentclass{article}' '\usepackage[T1]{fontenc}' '\usepackage{booktabs}' '\begin{document}' >"$scratch/$part.tex"
        { cat "$scratch/$part.latex"; echo '\end{document}'; } >>"$scratch/$part.tex"
        (cd "$scratch" && timeout 60 pdflatex -draftmode -interaction=nonstopmode -halt-on-error "$part.tex" >"$scratch/tex" 2>&1) ||
            { fail "$part.tex does not compile"; grep -a -A3 '^!' "$scratch/tex"; }
    done
fi

# A run that lost what it knew: the verdict, and the exit code that CI sees.
sqlite3 "$scratch/work/results/after.db" "UPDATE sample SET score = score - 0.02"
expect_exit 0 '' ./harness compare "$scratch/work/results/before.db" "$scratch/work/results/after.db"
expect_exit 4 'points is below -1' ./harness compare "$scratch/work/results/before.db" "$scratch/work/results/after.db" --fail-below -1
expect_exit 0 '' ./harness compare "$scratch/work/results/before.db" "$scratch/work/results/after.db:quick" --fail-below -3
sqlite3 "$scratch/work/results/after.db" "PRAGMA foreign_keys = ON; DELETE FROM sample WHERE cell_id IN (SELECT cell_id FROM v_cell WHERE method = 'window')"
expect_exit 4 'rows of A are missing in B' ./harness compare "$scratch/work/results/before.db" "$scratch/work/results/after.db" --fail-below -3
expect_exit 2 'compare what' ./harness compare "$scratch/work/results/before.db"
expect_exit 2 'takes points' ./harness compare a.db b.db --fail-below much
expect_exit 2 '--format is one of' ./harness report "$scratch/work/results/before.db" --format pdf
exit $((failures > 0))
