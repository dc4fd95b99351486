#!/usr/bin/env bash
# The rules of the house (docs/architecture.md): what each room may include, no method named in shared code, file sizes,
# comments that name documents of the tree.
set -u
cd "$(dirname "$0")/../.."
bad=0
complain() { echo "$1"; bad=1; }

# ---- includes: room -> pattern of allowed project headers -----------------------------------------------------
allowed() {
    case $1 in
    base) echo '^(base/|embedded\.h)' ;;
    kernels) echo '^(base/|kernels/)' ;;
    registry) echo '^(base/|methods/|methods_list\.h)' ;;
    methods) echo '^methods/method\.h$' ;;
    model) echo '^(base/|model/|kernels/kernels\.h|methods/method\.h)' ;;
    datasets) echo '^(base/|datasets/)' ;;
    training) echo '^(base/|training/|model/|datasets/datasets\.h|kernels/(kernels|training)\.h|methods/method\.h)' ;;
    results) echo '^(base/|results/)' ;;
    properties) echo '^(base/|properties/|kernels/(kernels|cases|cpu/convert)\.h|model/engine/engine\.h|methods/(method|registry/registry)\.h)' ;;
    driver) echo '^(base/|driver/|properties/(sweep|properties|stage)\.h|datasets/datasets\.h|model/model\.h|methods/(method|registry/registry)\.h|kernels/(kernels|bench)\.h|results/(results|training)\.h|training/training\.h|version\.h)' ;;
    esac
}
check_room() {
    local room=$1 pattern; shift
    pattern=$(allowed "$room")
    for f in "$@"; do
        [ -f "$f" ] || continue
        while read -r header; do
            [[ $header =~ $pattern ]] || complain "$f includes \"$header\", which $room may not"
        done < <(sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]+"([^"]+)".*/\1/p' "$f")
    done
}
check_room base base/*.[ch]
check_room kernels kernels/*.[ch] kernels/*/*.[ch] kernels/*/*.cu kernels/*/*.cuh
check_room registry methods/registry/*.[ch]
check_room methods methods/*.[ch] methods/examples/*.[ch]
check_room model model/*.[ch] model/*/*.[ch]
check_room datasets datasets/*.[ch] datasets/*/*.[ch]
check_room results results/*.[ch]
check_room training training/*.[ch]
check_room properties properties/*.[ch]
check_room driver driver/*.[ch] driver/*/*.[ch]

# ---- inner walls: folder -> project headers that it may include, or may not (a pattern that begins with !) ----------
wall() {
    local folder=$1 pattern=$2 not=0; [[ $pattern == !* ]] && not=1 && pattern=${pattern#!}
    for f in "$folder"/*.[ch]; do
        while read -r header; do
            if [[ $header =~ $pattern ]]; then [ $not = 0 ]; else [ $not = 1 ]; fi ||
                complain "$f includes \"$header\", which $folder may not"
        done < <(sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]+"([^"]+)".*/\1/p' "$f")
    done
}
wall driver/os '^(base/|driver/os/|version\.h)'
wall driver/config '^(base/|driver/(os|config)/|methods/registry/registry\.h|datasets/datasets\.h|model/model\.h|training/training\.h)'
wall driver/worker '^(base/|driver/(os|config|worker)/|driver/(arm|open)\.h|model/model\.h)'
wall driver/pass '^(base/|driver/(os|config|pass)/|driver/worker/isolate\.h|driver/arm\.h|model/model\.h)'
wall model/checkpoint '!^model/(engine|tokenizer|sampler)/'
wall model/sampler '!^model/engine/'
wall datasets/read '!^datasets/(generate|longbench|longgenbench|metric|niah|ruler|score)/'
wall datasets/metric '!^datasets/(generate|longbench|longgenbench|niah|ruler|score)/'
# A run is started by a command, and by nobody else.
for f in driver/*.[ch] driver/*/*.[ch]; do
    case $f in driver/command/* | driver/main.c | driver/run.[ch]) continue ;; esac
    ! grep -q '"driver/run\.h"' "$f" || complain "$f includes driver/run.h, which only commands may"
done

# ---- a line with a name from outside is printed by driver/os/say.c, which spells its control characters -----------------
hits=$(grep -nE 'fprintf\(stderr.*%[-.*0-9]*s|printf\("harness: ' driver/*.c driver/*/*.c | grep -v '^driver/os/')
[ -z "$hits" ] || complain "a line that mb_say() or mb_print() should print: $hits"

# ---- a config key is named in its row, and nowhere else that reads the config --------------------------------------
# The struct's fields carry a key's value; its name as text stands in driver/config/keys.c alone.
hits=$(sed -nE 's/^    \{"[a-z]*", "([a-z_]+)", MB_KEY.*/\1/p' driver/config/keys.c | sort -u | while read -r key; do
    grep -nE "cJSON_[A-Za-z]*(Get|Has|Add|Replace|Delete)[A-Za-z]*\(.*\"$key\"" driver/config/*.c driver/*.c results/identity.c driver/pass/*.c
done)
[ -z "$hits" ] || complain "a config key named outside driver/config/keys.c: $hits"
[ "$(grep -cE '^    \{"[a-z]*", "[a-z_]+", MB_KEY' driver/config/keys.c)" -gt 40 ] || complain "the rows of driver/config/keys.c were not found"

# ---- no method's name in shared code ----------------------------------------------------------------------------
# Names that are also English words are looked for as quoted strings only; the others anywhere.
english=' exact random window oracle residual example '
for source in methods/*.c; do
    name=$(basename "$source" .c)
    if [[ $english == *" $name "* ]]; then
        hits=$(grep -nF "\"$name\"" driver/*.[ch] driver/*/*.[ch] model/*.[ch] model/*/*.[ch] training/*.[ch] kernels/*.[ch] kernels/*/*.* | grep -v weights)
    else
        hits=$(grep -niwF "$name" driver/*.[ch] driver/*/*.[ch] model/*.[ch] model/*/*.[ch] training/*.[ch] kernels/*.[ch] kernels/*/*.*)
    fi
    [ -z "$hits" ] || complain "a method's name in shared code: $hits"
done

# ---- a family's name stands in its table, its sampler, its prompt and its layout, and nowhere else --------------------
# Model types of config.json are text of classes.c (and of the rows that make a GGUF file's config.json).
family_files='^model/(model\.h|prompt\.c|checkpoint/(classes|shapes|layout|config|config_moe)\.c|sampler/[a-z_0-9]+\.[ch]):'
hits=$(grep -rnE 'MB_FAMILY_[A-Z]' --include=*.[ch] base kernels methods model datasets results training driver | grep -vE "$family_files")
[ -z "$hits" ] || complain "a family's name in shared code: $hits"
types=$(sed -nE 's/.*\.model_type = "([A-Za-z0-9_]+)".*/\1/p' model/checkpoint/classes.c | sort -u)
[ "$(wc -w <<<"$types")" -gt 8 ] || complain "the rows of model/checkpoint/classes.c were not found"
for type in $types; do
    hits=$(grep -rnF "\"$type\"" --include=*.[ch] model training driver | grep -vE '^model/(model\.h|checkpoint/(classes|config|gguf_config|gguf_tokenizer)\.c):')
    [ -z "$hits" ] || complain "the model type $type in shared code: $hits"
done

# ---- conditional compilation only in kernels/ -----------------------------------------------------------------------
hits=$(grep -nE '^[[:space:]]*#[[:space:]]*if' base/*.c driver/*.c driver/*/*.c model/*.c model/*/*.c training/*.c methods/*.c methods/registry/*.c datasets/*.c datasets/*/*.c properties/*.c results/*.c |
       grep -vE '__cplusplus')
[ -z "$hits" ] || complain "conditional compilation outside kernels/: $hits"

# ---- the words that kernels and methods share stand in two headers, with the same text ---------------------------
shared() { sed -n '/^#ifndef MB_SHARED_WORDS/,/^#endif .* MB_SHARED_WORDS/p' "$1"; }
[ -n "$(shared kernels/words.h)" ] && [ "$(shared kernels/words.h)" = "$(shared methods/method.h)" ] ||
    complain "kernels/words.h and methods/method.h differ between #ifndef MB_SHARED_WORDS and its #endif"

# ---- comments name documents that are in the tree -----------------------------------------------------------------
# A path is looked for from the root and from the folder of the file. Every line of a Python file counts (docstrings).
comments_with_documents() {
    local rooms="base datasets driver findings kernels methods model models plots properties results tests tools"
    grep -rnE '(^[[:space:]]*\*|/\*|//).*\.md\b' --include=*.c --include=*.h --include=*.cu --include=*.cuh $rooms
    grep -rnE '(^|[[:space:]])#.*\.md\b' --include=*.sh --include=*.mk --include=*.gp $rooms
    grep -nE '(^|[[:space:]])#.*\.md\b' Makefile /dev/null
    grep -rnE -e '--.*\.md\b' --include=*.sql $rooms
    grep -rnE '\.md\b' --include=*.py $rooms
}
while IFS=: read -r file line text; do
    while read -r name; do
        [[ $name == //* || -e $name || -e $(dirname "$file")/$name ]] ||
            complain "$file:$line names $name, which is not in the tree: say the fact, or name the paper and its section"
    done < <(grep -oE '[[:alnum:]_./-]*[[:alnum:]_-]\.md\b' <<<"$text")
done < <(comments_with_documents)

# ---- sizes ---------------------------------------------------------------------------------------------------------
for f in */*.[ch] */*/*.[ch] */*/*.cu */*/*.cuh; do
    [[ -f $f && $f != build* && $f != models/* ]] || continue
    lines=$(wc -l <"$f")
    [ "$lines" -le 600 ] || complain "$f has $lines lines; 600 is the limit"
done
exit $bad
