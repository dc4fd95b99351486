#!/usr/bin/env bash
# The chat template of a checkpoint's folder: which one a prompt is made with, the keys of "chat" and their flags,
# what is refused, and that another template is another prompt under another tokenizer's name.
set -u
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
fail() { echo "$1"; shift; [ $# -gt 0 ] && cat "$@"; exit 1; }

folder() { # NAME TEMPLATE
    mkdir "$out/$1"
    for f in config.json tokenizer.json model.safetensors; do ln -s "$PWD/models/tiny/$f" "$out/$1/$f"; done
    [ -z "${2:-}" ] || printf '%s' "$2" >"$out/$1/chat_template.jinja"
}
turn='{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
'
folder plain
folder thinks "$turn{% if enable_thinking is defined and not enable_thinking %}{% else %}<think>
{% endif %}"
folder brief '{{ "<|im_start|>system\nBe brief.<|im_end|>\n" }}'"$turn"
folder broken '{% include "other" %}'

text() { # FOLDER FLAGS...
    local folder=$out/$1; shift
    printf 'Hello' | ./harness tokenize --chat --model "$folder" "$@" 2>"$out/err" | ./harness tokenize --decode --model "$folder"
}
same() { # WHAT WANTED GOT
    [ "$2" = "$3" ] || fail "$1: wanted <$2>, got <$3>" "$out/err"
}
user='<|im_start|>user
Hello<|im_end|>
<|im_start|>assistant
'
same "no template" "$user"x "$(text plain; echo x)"
same "the folder's template" "$user<think>
"x "$(text thinks; echo x)"
same "thinking off" "$user"x "$(text thinks --thinking false; echo x)"
same "the family's format" "$user"x "$(text thinks --chat-template family; echo x)"
same "the family, thinking off" "$user<think>

</think>

"x "$(text plain --thinking false; echo x)"
same "a system message" "<|im_start|>system
Kind.<|im_end|>
$user"x "$(text thinks --thinking false --system Kind.; echo x)"
same "the family, a system message" "<|im_start|>system
Kind.<|im_end|>
$user"x "$(text plain --system Kind.; echo x)"

refused() { # WORD FOLDER FLAGS...
    local word=$1 folder=$out/$2; shift 2
    printf 'Hello' | ./harness tokenize --chat --model "$folder" "$@" >"$out/ids" 2>"$out/err"
    [ $? = 2 ] || fail "$word: no exit code 2" "$out/err"
    grep -q -- "$word" "$out/err" || fail "no \"$word\" in the sentence" "$out/err"
}
refused 'line 1: {% include %} is not supported' broken
refused '"template": "family"' broken
refused 'no switch for thinking' brief --thinking true
refused 'no chat template' plain --chat-template folder
refused 'chat.thinking must be one of true|false' plain --thinking perhaps
echo 1 2 3 >"$out/three"
text broken --chat-template family >/dev/null || fail "a template that is not used is no obstacle" "$out/err"
./harness logits --model "$out/broken" --ids "$out/three" --out "$out/o.npy" 2>"$out/err" || fail "logits need no template" "$out/err"

# ---- a run: one prompt for each template, and a word about it -----------------------------------------------------
run() { # NAME FOLDER KEYS
    cat >"$out/$1.json" <<JSON
{"name": "$1", "model": "$out/$2", "data": "datasets/sample", "max_new_tokens": 1, "device": "cpu", "max_length": 400,
 $3 "tasks": [{"task": "hotpotqa", "limit": 1}], "methods": {"exact": {}},
 "sampler": {"schedule": "fixed", "steps": 1}, "passes": ["quality"], "plots": ""}
JSON
    ./harness --config "$out/$1.json" --db "$out/all.db" >"$out/$1.log" 2>&1 || fail "$1" "$out/$1.log"
    grep -q "$4" "$out/$1.log" || fail "$1: no word about the template" "$out/$1.log"
}
run plain plain '' 'chat format built in for the family sdar: the folder has no chat template'
run thinks thinks '' 'chat template of the folder: .*/thinks/chat_template.jinja'
run off thinks '"chat": {"thinking": false},' 'chat template of the folder'
run brief brief '"chat": {"template": "folder"},' 'chat template of the folder'
run kind plain '"chat": {"system": "Kind."},' 'built in for the family'
run family thinks '"chat": {"template": "family"},' 'built in for the family sdar'
hashes=$(sqlite3 "$out/all.db" 'SELECT count(DISTINCT token_hash) FROM prompt')
[ "$hashes" = 4 ] || fail "$hashes prompts instead of 4: plain (= off = family), thinks, brief, kind"
runs=$(sqlite3 "$out/all.db" 'SELECT count(*) FROM run')
[ "$runs" = 6 ] || fail "$runs runs instead of 6"
models=$(sqlite3 "$out/all.db" 'SELECT count(DISTINCT tokenizer_hash) FROM model')
[ "$models" = 3 ] || fail "$models tokenizers instead of 3: the plain one, and one with each template"
echo "chat: ok"
