#!/usr/bin/env bash
# Bad input of every kind: one clear sentence, exit code 2, and what was stored stays.
. "$(dirname "$0")/lib.sh"
base="./harness --config tests/driver/configs/small.json --limit 1 --quiet --out $scratch/plots --db $scratch/x.db"
with() { # with NAME 'python-free JSON edit': a config written by hand into the scratch folder
    printf '%s' "$2" >"$scratch/$1.json"
    echo "$scratch/$1.json"
}
methods='"methods": {"exact": {}}, "tasks": [{"task": "niah_single", "lengths": [512], "depths": [50], "samples": 1}]'

# ---- command line ----
expect_exit 2 'unknown flag --nonsense' ./harness --nonsense
expect_exit 2 'unknown command "fly"' ./harness fly
expect_exit 2 '--limit takes a whole number' ./harness --limit many
expect_exit 2 'needs a value' ./harness --config
expect_exit 2 'write it as key=value' $base --set nothing
expect_exit 2 'sampler.steps: that is a list of 2 here' ./harness --set sampler.steps=8 --dry-run
expect_exit 2 'sampler.2.steps: 2 is not an object' ./harness --set sampler.2.steps=8 --dry-run
expect_exit 2 'to 9007199254740992' ./harness --seed 9007199254740993
expect_exit 2 'run takes no further word "configs/quick.json"' ./harness run configs/quick.json
expect_exit 2 'doctor takes no further word' ./harness doctor there
expect_exit 2 '--steps says nothing to "run"' $base --steps 3
expect_exit 2 '--limit says nothing to "report"; it belongs to: run' ./harness report x.db --limit 3

# ---- config ----
expect_exit 2 'no-such.json' ./harness --config no-such.json
expect_exit 2 'not valid JSON at line 2' ./harness --config "$(with broken $'{\n "name": }')"
expect_exit 2 'must hold one JSON object' ./harness --config "$(with list '[1]')"
expect_exit 2 'unknown config key sped' ./harness --config "$(with key "{\"sped\": 1, $methods}")"
# 300,000 keys are refused by their number, not after minutes of comparing each with each; the same for depth.
{ printf '{"seed": 1'; seq -f ',"k%.0f":1' 300000 | tr -d '\n'; printf '}'; } >"$scratch/many.json"
expect_exit 2 'more than 4096 entries' timeout 20 ./harness --config "$scratch/many.json"
{ printf '{"chat": '; printf '[%.0s' $(seq 500); printf ']%.0s' $(seq 500); printf '}'; } >"$scratch/deep.json"
expect_exit 2 'nested deeper than 64 levels' ./harness --config "$scratch/deep.json"
expect_exit 2 'no key is that deep' $base --set "$(printf 'a.%.0s' $(seq 100))b=1"
expect_exit 2 'given twice' ./harness --config "$(with twice "{\"seed\": 1, \"seed\": 2, $methods}")"
expect_exit 2 'methods.mage.k is given twice' ./harness --config "$(with option '{"methods": {"mage": {"k": 3, "k": 5}}, "tasks": []}')"
expect_exit 2 'methods.exact is given twice' ./harness --config "$(with method '{"methods": {"exact": {}, "exact": {}}, "tasks": []}')"
expect_exit 2 'tasks.0..lengths is given twice' $base --set 'tasks=[{"task": "niah_single", "lengths": [512], "lengths": [256]}]'
expect_exit 2 'tasks.0..limit must be a whole number' $base --set 'tasks=[{"task": "niah_single", "limit": "3"}]'
expect_exit 2 'tasks.0..limit must be a whole number' $base --set 'tasks=[{"task": "niah_single", "limit": -1}]'
expect_exit 2 'tasks.0..data must be text' $base --set 'tasks=[{"task": "hotpotqa", "data": 3}]'
expect_exit 2 'passes must be a list that is not empty' $base --set 'passes=[]'
expect_exit 2 'seed.* must be a whole number' $base --set seed=1.5
expect_exit 2 'threshold is 7' $base --set sampler.threshold=7
expect_exit 2 'sampler.steps is 64' $base --set sampler.steps=64
expect_exit 2 'unknown method "telepathy"' $base --set 'methods={"telepathy": {}}'
expect_exit 2 'methods.mage.kk' $base --set methods.mage.kk=3
expect_exit 2 'methods.mage.k' $base --set methods.mage.k=0
expect_exit 2 'methods.mage.k' $base --set methods.mage.k=many
expect_exit 2 'empty list' $base --set 'methods.mage.k=[]'
expect_exit 2 'no_such_task' $base --tasks no_such_task
expect_exit 2 'passes' $base --set 'passes=["speed"]'
expect_exit 2 '65536 tokens .* 32768 positions' $base --set 'tasks=[{"task": "niah_single", "lengths": [65536]}]'
expect_exit 2 'lenghts' $base --set 'tasks=[{"task": "niah_single", "lenghts": [512]}]'
expect_exit 2 'device' $base --device teapot

# ---- checkpoint ----
expect_exit 2 'config.json' $base --model no/such/folder
expect_exit 2 'Fast_dLLM_v2_7B/config.json.*--model' ./harness --config configs/longbench_128k.json --db "$scratch/y.db"
copy() { rm -rf "$scratch/model"; cp -r models/tiny "$scratch/model"; }
copy; rm "$scratch/model/model.safetensors"
expect_exit 2 'model.safetensors' $base --model "$scratch/model"
copy; truncate -s 5000000 "$scratch/model/model.safetensors"
expect_exit 2 'model.safetensors' $base --model "$scratch/model"
copy; printf '\xff\xff\xff\xff\xff\xff\xff\x7f' | dd of="$scratch/model/model.safetensors" conv=notrunc status=none
expect_exit 2 'model.safetensors' $base --model "$scratch/model"
copy; echo '{' >"$scratch/model/tokenizer.json"
expect_exit 2 'tokenizer.json' $base --model "$scratch/model"
copy; rm "$scratch/model/tokenizer.json"
expect_exit 2 'tokenizer' $base --model "$scratch/model"
copy; sed -i 's/"num_hidden_layers": 6/"num_hidden_layers": 7/' "$scratch/model/config.json"
expect_exit 2 'layers.6' $base --model "$scratch/model"
copy; echo 'not json' >"$scratch/model/config.json"
expect_exit 2 'config.json' $base --model "$scratch/model"

# Weights that load and make NaN: whatever the pass, its samples are stored as failed and the run ends as usual.
copy; weights=$scratch/model/model.safetensors
header=$(od -An -tu8 -N8 "$weights" | tr -d ' ')
at=$(head -c $((8 + header)) "$weights" | grep -aoE '"model.norm.weight" *: *\{[^}]*' | sed -E 's/.*data_offsets" *: *\[ *([0-9]+).*/\1/')
printf '\xff\xff' | dd of="$weights" bs=1 seek=$((8 + header + at)) conv=notrunc status=none
for pass in quality recall forced; do
    expect_exit 3 'samples failed' $base --db "$scratch/nan.db" --model "$scratch/model" --set "passes=[\"$pass\"]"
    [ "$(sqlite3 "$scratch/nan.db" "SELECT count(*) > 0 AND min(status = 'failed' AND error LIKE '%not finite%') FROM v_samples
        WHERE pass = '$pass'")" = 1 ] || fail "the $pass pass has no rows that say that the logits are not finite"
done

# ---- data ----
expect_exit 2 'hotpotqa.jsonl.*fetch.sh' $base --data "$scratch" --tasks hotpotqa
mkdir -p "$scratch/data"
{ head -1 datasets/sample/data/hotpotqa.jsonl; echo '{"broken'; printf '{"input": "\xff\xfe", "context": "x", "answers": ["a"], "length": 1, "all_classes": null, "_id": "u"}\n'
  echo '{"input": "no context", "answers": ["a"]}'; tail -n +2 datasets/sample/data/hotpotqa.jsonl | head -1; } >"$scratch/data/hotpotqa.jsonl"
expect_exit 3 'samples failed' ./harness --config tests/driver/configs/small.json --quiet --out "" --db "$scratch/rows.db" --data "$scratch" --tasks hotpotqa --methods exact --set 'passes=["quality"]'
ok=$(sqlite3 "$scratch/rows.db" "SELECT count(*) FROM sample WHERE status = 'ok'")
bad=$(sqlite3 "$scratch/rows.db" "SELECT count(*) FROM sample WHERE status = 'failed' AND error LIKE '%hotpotqa.jsonl:%'")
[ "$ok" = 2 ] && [ "$bad" = 3 ] || fail "hotpotqa with three bad rows: $ok ok, $bad failed with file and line"

# ---- database ----
$base >/dev/null 2>&1 || fail "the run that the next checks build on failed"
cp "$scratch/x.db" "$scratch/safe.db"
rows() { sqlite3 "$1" 'SELECT count(*) FROM sample'; }
sqlite3 "$scratch/v.db" 'PRAGMA application_id = 1; CREATE TABLE t(x)'
expect_exit 2 'v.db' ./harness report "$scratch/v.db"
cp "$scratch/safe.db" "$scratch/old.db"; sqlite3 "$scratch/old.db" 'PRAGMA user_version = 99'
expect_exit 2 'version' ./harness --config tests/driver/configs/small.json --quiet --out "" --db "$scratch/old.db"
[ "$(rows "$scratch/old.db")" = "$(rows "$scratch/safe.db")" ] || fail "a refused database was changed"
echo 'this is no database, it is a longer piece of plain text' >"$scratch/text.db"
expect_exit 2 'text.db' ./harness report "$scratch/text.db"
expect_exit 2 'nowhere.db' ./harness report "$scratch/nowhere.db"
( echo 'BEGIN EXCLUSIVE;'; sleep 8; echo 'COMMIT;' ) | sqlite3 "$scratch/x.db" &
sleep 0.5
expect_exit 2 'x.db' $base
kill %1 2>/dev/null; wait 2>/dev/null
[ "$(rows "$scratch/x.db")" = "$(rows "$scratch/safe.db")" ] || fail "a busy database was changed"
mkdir "$scratch/readonly"; chmod 555 "$scratch/readonly"
if [ "$(id -u)" != 0 ]; then
    expect_exit 2 'readonly' ./harness --config tests/driver/configs/small.json --quiet --out "" --db "$scratch/readonly/r.db"
fi
expect_exit 2 'proc' ./harness --config tests/driver/configs/small.json --quiet --out "" --db /proc/r.db

# ---- plug-ins ----
expect_exit 2 'no-such.so' ./harness --plugin no-such.so list methods
expect_exit 2 'text.db' ./harness --plugin "$scratch/text.db" list methods

# ---- model from outside ----
echo '1 2 99999' >"$scratch/ids"
expect_exit 2 '99999' ./harness logits --ids "$scratch/ids" --out "$scratch/l.npy"
echo 'x y' >"$scratch/ids"
expect_exit 2 'not a token id' ./harness logits --ids "$scratch/ids" --out "$scratch/l.npy"
expect_exit 2 'needs --prompt' ./harness generate
echo 'Say something.' >"$scratch/prompt"
expect_exit 2 '1 to 32 steps' ./harness generate --prompt "$scratch/prompt" --steps 99
expect_exit 2 '1 to 32 steps' ./harness generate --prompt "$scratch/prompt" --steps 0
expect_exit 2 'room for 1 to 32672 with a prompt' ./harness generate --prompt "$scratch/prompt" --max-new-tokens 5000000000
generate="./harness generate --prompt $scratch/prompt --max-new-tokens 32 --threads 1"
expect_exit 2 'sampler.threshold is 2' $generate --threshold 2
expect_exit 2 'no block cache' $generate --block-cache true
expect_exit 2 'only Fast-dLLM v2 has sub-blocks' $generate --sub-block 4
expect_exit 2 'stop token 2048 is outside the vocabulary' $generate --stop 2048
expect_exit 2 'edits no written token' $generate --editing-threshold 0.5
expect_exit 2 'seed must be a whole number' $generate --seed 1,2
expect_exit 2 'belongs to: run generate' ./harness logits --temperature 1
expect_exit 0 '' $generate --steps 4
# A flag is a spelling of --set: the same text, and another than the greedy one's.
drawn=$($generate --quiet --temperature 9 --seed 3 --block 16 --stop 5 --steps 2)
[ "$drawn" = "$($generate --quiet --set sampler.temperature=9 --seed 3 --set model.block=16 --set model.stop=5 --steps 2)" ]
[ "$drawn" != "$($generate --quiet --seed 3 --block 16 --stop 5 --steps 2)" ]
exit $((failures > 0))
