#!/usr/bin/env bash
# The tokenizer against the reference implementation, Hugging Face tokenizers: categories, white space and NFC over all
# code points, and 20,000 odd strings a folder. Skipped where the Python package is not installed:
#     python3 -m pip install tokenizers==0.23.3
# MASKBENCH_PYTHON names another Python, MASKBENCH_TOKENIZERS more folders with a tokenizer.json (separated by ":").
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${MASKBENCH_PYTHON:-python3}; build=${BUILD:-build}
if ! "$python" -c 'import tokenizers' 2>/dev/null; then
    echo "skipped: $python has no package tokenizers (python3 -m pip install tokenizers==0.23.3)"
    exit 0
fi
make --no-print-directory -s BUILD="$build" "$build/tests/model/encode_texts" >/dev/null
IFS=: read -r -a more <<<"${MASKBENCH_TOKENIZERS:-}"
"$python" tests/model/compare_reference.py "$build/tests/model/encode_texts" tests/model/fixtures/bpe tests/model/fixtures/characters \
    models/tiny \
    ${more[@]+"${more[@]}"}
