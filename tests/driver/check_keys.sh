#!/usr/bin/env bash
# A config key is one row in driver/config/keys.c and one field in driver/config/config.h: a key that is added to a
# copy of the two is checked, filled, settable, a flag and documented, with no other file touched. And the table in
# configs/README.md is what the rows say.
. "$(dirname "$0")/lib.sh"
build=${BUILD:-build}

# ---- the page ----
sed -n '/<!-- keys: begin/,/<!-- keys: end/p' configs/README.md | sed '1d;$d' >"$scratch/page"
./harness help config --md >"$scratch/rows"
diff "$scratch/page" "$scratch/rows" >"$scratch/diff" ||
    { fail "configs/README.md is not what ./harness help config --md prints"; head -5 "$scratch/diff"; }
[ "$(grep -c '^| `' "$scratch/rows")" -gt 40 ] || fail "./harness help config --md prints too few keys"

# ---- the schema ----
./harness schema >"$scratch/schema.json"
# a training's config is of another kind (tests/driver/check_train.sh)
mapfile -t runs < <(ls configs/*.json paper/*.json paper/tiny/*.json tests/driver/configs/*.json | grep -vE '(/|_)train(_[^/]*)?\.json$')
python3 - "$scratch/schema.json" "${runs[@]}" <<'PY' || fail "the configs and the schema disagree"
import json, re, sys
schema, *files = sys.argv[1:]
schema = json.load(open(schema))
try:
    import jsonschema
except ImportError:
    sys.exit(print("no python package jsonschema: configs are not validated"))
validator = jsonschema.Draft7Validator(schema)
validator.check_schema(schema)
bad = [f"{f}: {e.message[:200]}" for f in files for e in validator.iter_errors(json.loads(re.sub(r"(?m) //.*$", "", open(f).read())))]
wrong = [{"sede": 1}, {"seed": 1.5}, {"seed": []}, {"methods": {"exactt": {}}}, {"methods": {"quest": {"k": "many"}}},
         {"model": {"type": "f64"}}, {"tasks": [3]}, {"sampler": {"stepz": 4}}, {"passes": []}]
right = [{"$schema": "x", "seed": [1, 2], "methods": {"quest": {"k": [16, 32]}, "exact": None}}, {"model": "m"},
         {"tasks": ["longbench_en", {"task": "niah_single", "lengths": [512]}]}, {"chat": {"thinking": True}}]
bad += [f"accepted: {w}" for w in wrong if validator.is_valid(w)] + [f"refused: {r}" for r in right if not validator.is_valid(r)]
print("\n".join(bad))
sys.exit(bool(bad))
PY

# ---- a new key ----
cp -r driver "$scratch/driver"
keys=$scratch/driver/config/keys.c config=$scratch/driver/config/config.h
sed -i '0,/^    {"", "name"/s//    {"", "probe_key", MB_KEY_INT, AT(probe_key), .min = 2, .max = 9, .preset = "4", .flag = "--probe-key N", .extends = true, .help = "a key of this test"},\n&/' "$keys"
sed -i 's/^} mb_run_config;/    int32_t probe_key;\n&/' "$config"
[ "$(diff -rq driver "$scratch/driver" | wc -l)" = 2 ] || fail "the probe key was not put into exactly two files"
read -r -a libraries < <(make -s print-libraries)
${CC:-gcc} -std=c11 -D_GNU_SOURCE -O0 -I"$scratch" -I. -I"$build/generated" -rdynamic -o "$scratch/harness" \
    "$scratch"/driver/*.c "$scratch"/driver/*/*.c "$build/libmaskbench.a" "${libraries[@]}" >"$scratch/log" 2>&1 ||
    { fail "a tree with one more key does not build"; head -5 "$scratch/log"; exit 1; }
probe="$scratch/harness --config tests/driver/configs/small.json --quiet --dry-run"
"$scratch/harness" help config | grep -q 'probe_key .*2\.\.9 (default 4; --probe-key N)' || fail "help config lacks the new key"
"$scratch/harness" run --help | grep -q -- "--probe-key N" || fail "run --help lacks the new key's flag"
"$scratch/harness" help config --md | grep -q '^| `probe_key`' || fail "the page lacks the new key"
expect_exit 0 '' $probe --set probe_key=9
expect_exit 0 '' $probe --probe-key 2
"$scratch/harness" schema | grep -q '"probe_key"' || fail "the schema lacks the new key"
expect_exit 2 'config key probe_key is 10; .* from 2 to 9' $probe --set probe_key=10
expect_exit 2 'config key probe_key must be a whole number' $probe --set probe_key=many
expect_exit 2 '--probe-key takes a whole number from 2 to 9, not "1"' $probe --probe-key 1
expect_exit 2 '--probe-key says nothing to "report"; it belongs to: run' "$scratch/harness" report x.db --probe-key 3
exit $((failures > 0))
