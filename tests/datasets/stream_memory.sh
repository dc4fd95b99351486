#!/usr/bin/env bash
# Measures the memory that streaming a large data file costs: writes a LongBench file of SIZE MiB (1024) with rows of
# ROW KiB (40) and one corrupt line, a LongBench v2 array of the same size, and prints rows, largest prompt and peak
# memory of reading each. Needs SIZE MiB under $TMPDIR. Prints figures, asserts nothing.
#     bash tests/datasets/stream_memory.sh [SIZE [ROW]]
set -euo pipefail
cd "$(dirname "$0")/../.."
size=${1:-1024}; row=${2:-40}; build=${BUILD:-build}
make --no-print-directory BUILD="$build" "$build/tests/datasets/stream_memory" >/dev/null
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
rows=$((size * 1024 / row))
context=$(head -c $((row * 1024 - 200)) /dev/zero | tr '\0' 'x')
for ((i = 1; i <= rows; i++)); do
    printf '{"_id":"%048d","context":"%s","input":"q","answers":["a"],"length":5}\n' $i "$context"
    [ $i != 7 ] || echo '{"_id":"broken'
done > "$folder/hotpotqa.jsonl"
ls -l "$folder/hotpotqa.jsonl" | awk '{printf "file of %.0f MiB\n", $5 / 1048576}'
"$build/tests/datasets/stream_memory" hotpotqa "$folder"
rm "$folder/hotpotqa.jsonl"
{
    echo '['
    for ((i = 1; i <= rows; i++)); do
        printf '{"_id":"%d","difficulty":"easy","length":"short","question":"q","choice_A":"a","choice_B":"b",' $i
        printf '"choice_C":"c","choice_D":"d","answer":"A","context":"%s"}%s\n' "$context" "$([ $i = $rows ] || echo ,)"
    done
    echo ']'
} > "$folder/data.json"
"$build/tests/datasets/stream_memory" longbench_v2 "$folder"
