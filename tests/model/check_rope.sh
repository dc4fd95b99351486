#!/usr/bin/env bash
# Scaled RoPE beside transformers: the table of frequencies is the one that tests/model/rope_reference.py makes, and
# logits of models/tiny are those of transformers' Qwen3. Needs python3 with torch and transformers 5.x ($PYTHON names
# another interpreter); skipped where it has none.
set -u
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
"$python" -c 'import transformers, torch, safetensors' 2>/dev/null ||
    { echo "skipped: $python has no transformers and torch"; exit 0; }
made=$(mktemp)
trap 'rm -f "$made"' EXIT
"$python" tests/model/rope_reference.py 2>/dev/null | sed 's/, $/,/' >"$made" || { echo "rope_reference.py failed"; exit 1; }
diff <(grep -v 'Made by' "$made") <(grep -v 'Made by' tests/model/rope_cases.h) ||
    { echo "tests/model/rope_cases.h is not what this transformers computes"; exit 1; }
exec "$python" tests/model/rope_logits.py ./harness
