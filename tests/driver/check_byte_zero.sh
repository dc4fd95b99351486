#!/usr/bin/env bash
# Byte 0 in text, end to end: a prompt with it is read to its end, and an answer whose tokens hold it is stored, exported
# and scored whole. The model is models/tiny with a tokenizer whose token for " for" begins with byte 0 in place of the
# blank, so the answers get one without asking.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
harness=${BUILD:-build}/harness
fail() { echo "check_byte_zero: $*"; exit 1; }

mkdir "$out/model"
cp models/tiny/config.json "$out/model/"
ln -s "$PWD/models/tiny/model.safetensors" "$out/model/model.safetensors"
# The token is renamed; merges that make or use it go, so it stands for its bytes and nothing else.
sed -E 's/"Ġfor": /"Āfor": /; s/\["Ġf", "or"\], //; s/\["Ġfor", "[^"]*"\], //g' models/tiny/tokenizer.json > "$out/model/tokenizer.json"
grep -q '"Āfor": ' "$out/model/tokenizer.json" || fail "models/tiny/tokenizer.json no longer has the token \" for\""

printf 'What is the code\0 of the old gate?' > "$out/prompt.txt"
printf 'What is the code' > "$out/cut.txt"
whole=$("$harness" generate --model models/tiny --prompt "$out/prompt.txt" --max-new-tokens 1 2>&1 | grep -o '[0-9]* prompt tokens')
cut=$("$harness" generate --model models/tiny --prompt "$out/cut.txt" --max-new-tokens 1 2>&1 | grep -o '[0-9]* prompt tokens')
[ "${whole% prompt*}" -ge $((${cut% prompt*} + 5)) ] || fail "the prompt ends at its byte 0: $whole, $cut without the rest"

cat > "$out/config.json" <<END
{"name": "zero", "model": "$out/model", "data": "datasets/sample", "device": "cpu", "max_new_tokens": 32,
 "max_length": 700, "tasks": [{"task": "samsum", "limit": 3}], "methods": {"exact": {}},
 "sampler": [{"schedule": "threshold", "threshold": 0.9}], "passes": ["quality"], "plots": ""}
END
"$harness" --config "$out/config.json" --db "$out/zero.db" --fresh --quiet >"$out/log" 2>&1 || fail "the run: $(cat "$out/log")"
stored=$(sqlite3 "$out/zero.db" "SELECT count(*) FROM sample WHERE instr(hex(prediction), 'C080') > 0 AND length(CAST(prediction AS BLOB)) > 20")
[ "$stored" -gt 0 ] || fail "no stored answer has byte 0 and what follows it: $(sqlite3 "$out/zero.db" 'SELECT prediction FROM sample')"
echo "byte 0: $whole against $cut, $stored answers kept whole"
