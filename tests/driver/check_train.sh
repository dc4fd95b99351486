#!/usr/bin/env bash
# ./harness train as users call it: its plan, bad input, a training that SIGKILL ended going on to the same bits, the
# folder that the program itself answers with, docs that say what the key table says, an autoregressive
# base that becomes a model of blocks.
. "$(dirname "$0")/lib.sh"
small="--set start=random --set layers=2 --set hidden=64 --set query_heads=2 --set kv_heads=1 --set head_dim=32 \
--set intermediate=64 --set lengths=[128] --set tails=[128] --set tokens=256 --set steps=12 --set save_every=3 --set threads=1"
train="./harness train --quiet --config configs/train_tiny.json $small"

./harness help training --md >"$scratch/rows"
sed -n '/<!-- keys: begin/,/<!-- keys: end/p' docs/training.md | sed '1d;$d' >"$scratch/page"
diff "$scratch/rows" "$scratch/page" >"$scratch/diff" || { fail "docs/training.md is not what ./harness help training --md prints"; head -5 "$scratch/diff"; }

# ---- plans of the configs that are in the tree; nothing is written ----
for config in configs/train_*.json; do
    [ -e "$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["model"])' "$config")/config.json" ] || continue # make model-smol
    ./harness train --config "$config" --dry-run --set out="$scratch/none" --set results="$scratch/none.db" >"$scratch/out" || fail "$config has no plan"
    grep -qE '^  total +[0-9.]+ MiB' "$scratch/out" || fail "$config: the plan has no total"
done
[ ! -e "$scratch/none" ] && [ ! -e "$scratch/none.db" ] || fail "a plan wrote files"

# ---- bad input ----
expect_exit 2 'train what\?' ./harness train
expect_exit 2 'unknown config key stepz' $train --set stepz=3
expect_exit 2 'config key lr is 11' $train --set lr=11
expect_exit 2 'a training runs on "cpu", "cuda"' $train --set device=auto
expect_exit 2 'products is mixed, which is a way of GPUs' $train --set products=mixed
expect_exit 2 'multiples of the block' $train --set lengths=[100] --set tails=[100]
expect_exit 2 'no file of a training|not a database' $train --set out="$scratch/bad" --set results=configs/quick.json
expect_exit 2 'none.jsonl' $train --set data="$scratch/none.jsonl" --set out="$scratch/bad" --set results="$scratch/bad.db"
expect_exit 1 'step [0-9]+, batch 0 .*not finite' $train --set lr=10 --set decay=10 --set lr_min=1 --set warmup=0 --set clip=0 --set loss_limit=1e300 --set steps=400 --set eps=1e-12 --set lengths='[128]' --set out="$scratch/nan" --set results="$scratch/nan.db"
expect_exit 1 'step 1, batches 0 to 0 .*above the limit of 1 nats' $train --set loss_limit=1 --set out="$scratch/explode" --set results="$scratch/explode.db"
[ "$(sqlite3 "$scratch/nan.db" "SELECT state || ' ' || (reason LIKE '%not finite%') FROM training")" = "failed 1" ] || fail "the failed training is not stored as one"

# ---- killed and continued ----
$train --set out="$scratch/whole" --set results="$scratch/whole.db" || fail "the undisturbed training failed"
kills=0
for i in 1 2 3 4; do
    $train --set out="$scratch/killed" --set results="$scratch/killed.db" 2>/dev/null &
    child=$!
    for _ in $(seq 100); do # into the steps: a row more than before
        n=$(sqlite3 "$scratch/killed.db" "SELECT count(*) FROM training_step" 2>/dev/null || echo 0)
        [ "${n:-0}" -ge $((i * 2)) ] && break
        sleep 0.02
    done
    kill -KILL $child 2>/dev/null && kills=$((kills + 1))
    wait $child 2>/dev/null
done
[ $kills -gt 0 ] || fail "no training was killed"
$train --set out="$scratch/killed" --set results="$scratch/killed.db" || fail "the killed training does not go on"
for file in model.safetensors training.state config.json; do
    cmp -s "$scratch/whole/$file" "$scratch/killed/$file" || fail "$file differs after $kills kills"
done
steps="SELECT step, length, tokens, targets, loss, ce, accuracy, gradient_norm, lr FROM training_step ORDER BY step"
diff <(sqlite3 "$scratch/whole.db" "$steps") <(sqlite3 "$scratch/killed.db" "$steps") >/dev/null || fail "the stored steps differ"
[ "$(sqlite3 "$scratch/whole.db" 'SELECT count(*), min(tokens_per_second) > 0 FROM v_training')" = "12|1" ] || fail "v_training has not twelve steps"

# ---- the folder ----
./harness --config tests/driver/configs/small.json --model "$scratch/whole" --methods exact --tasks niah_single --limit 1 --quiet \
    --set 'passes=["quality"]' --out "" --db "$scratch/run.db" || fail "the trained folder does not run"
python3 - "$scratch/whole/model.safetensors" <<'PY' || fail "model.safetensors is not as the format has it"
import json, struct, sys
data = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", data[:8])[0]
head = json.loads(data[8:8 + n])
tensors = {k: v for k, v in head.items() if k != "__metadata__"}
assert n % 8 == 0 and head["__metadata__"]["format"] == "pt" and len(tensors) == 2 + 2 * 11
assert max(v["data_offsets"][1] for v in tensors.values()) == len(data) - 8 - n
assert all(v["dtype"] == "BF16" for v in tensors.values())
PY

# ---- an autoregressive Llama without mask and block becomes a model of blocks: what configs/train_smol.json does ----
llama="./harness train --quiet --config configs/train_smol.json --set model=$scratch/base --set data=$scratch/text.jsonl --set lengths=[64] \
--set tokens=256 --set steps=2 --set threads=1 --set lora_rank=2"
printf '{"text": "one two three four"}\n{"text": "<|user|>five<|end|>six"}\n' >"$scratch/text.jsonl"
./harness unpack tests/model/fixtures/gguf/llama.gguf --out "$scratch/base" --type f32 >/dev/null || fail "the fixture is not unpacked"
expect_exit 2 'mask.*block' $llama --set mask=0 --set out="$scratch/bad" --set results="$scratch/bad.db"
expect_exit 2 'no projection "x_proj"' $llama --set lora_targets=x_proj --set out="$scratch/bad" --set results="$scratch/bad.db"
$llama --set out="$scratch/llama" --set results="$scratch/llama.db" || fail "an autoregressive Llama is not trained"
[ "$(sqlite3 "$scratch/llama.db" 'SELECT count(*) FROM v_training WHERE abs(loss - ce - 0.5 * causal) < 1e-9 AND causal > 0')" = 2 ] ||
    fail "loss, ce and the autoregressive loss do not add up"
[ -s "$scratch/llama/adapter/adapter_model.safetensors" ] || fail "no adapter"
grep -q '"mask_token_id":[[:space:]]*16' "$scratch/llama/config.json" && grep -q '"block_size":[[:space:]]*32' "$scratch/llama/config.json" ||
    fail "config.json names neither mask nor block"
echo '{"tasks": [{"task": "niah_single", "lengths": [384], "samples": 1}], "methods": {"exact": {}},
"sampler": {"schedule": "fixed", "steps": 2}, "passes": ["quality"]}' >"$scratch/llama.json"
./harness --config "$scratch/llama.json" --model "$scratch/llama" --quiet --out "" --db "$scratch/llama_run.db" || fail "the trained Llama does not run"

# ---- which keys of a block its first step finds: two blocks of each noise ----
first=${BUILD:-build}/tests/training/first_step
[ -x "$first" ] || make -s "$first"
for recipe in block_diffusion uniform_noise; do
    "$first" configs/train_uniform_tiny.json recipe=$recipe lengths=[128] tails=[64] tokens=192 steps=1 k=8 >"$scratch/out" ||
        fail "first_step does not run with $recipe"
    [ "$(grep -cE '^ *[0-9]+( +(0\.[0-9]+|1\.0*)){4}' "$scratch/out")" = 6 ] || { fail "first_step has not six layers of four shares"; cat "$scratch/out"; }
done
python3 tools/smol_text.py --help >"$scratch/out" && grep -q results/smol_text.jsonl "$scratch/out" || fail "tools/smol_text.py has no help"
[ $failures = 0 ]
