#!/usr/bin/env bash
# transformers 5.24.0 with skip_special_tokens=True leaves a token in the text that the folder lists under
# additional_special_tokens but flags "special": false; 4.57.1 leaves it out. all_special_ids names the token in both, so
# a check of that list does not show it, and the same folder gives predictions (and scores) that differ.
#     bash findings/transformers_5_keeps_additional_special_tokens.sh
# Seen (exit 0 while it is so):
#     4.57.1: all_special_ids [257], text 'ab'
#     5.24.0: all_special_ids [257], text 'a<X>b'
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
for version in 4.57.1 5.24.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install -q "transformers==$version"
    TRANSFORMERS_VERBOSITY=error "$work/$version/bin/python" - "$work/folder" >"$work/$version.out" 2>/dev/null <<'END'
import json, os, sys
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_tokens([AddedToken("<P>", normalized=False), AddedToken("<X>", normalized=False)])
os.makedirs(sys.argv[1], exist_ok=True)
tokenizer.save(sys.argv[1] + "/tokenizer.json")
with open(sys.argv[1] + "/tokenizer_config.json", "w") as file:
    json.dump({"additional_special_tokens": ["<X>"]}, file)
loaded = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
ids = loaded("a<X>b")["input_ids"]
print("all_special_ids %s, text %r" % (loaded.all_special_ids, loaded.decode(ids, skip_special_tokens=True)))
END
    echo "$version: $(cat "$work/$version.out")"
done
[ "$(cat "$work/4.57.1.out")" = "all_special_ids [257], text 'ab'" ]
[ "$(cat "$work/5.24.0.out")" = "all_special_ids [257], text 'a<X>b'" ]
