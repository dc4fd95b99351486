#!/usr/bin/env bash
# ./harness bench-kernels on the CPU: the columns are there, numbers are finite and agree with each other, the bytes
# and FLOPs of a known shape are the ones counted by hand, large cases are skipped with a line, wrong input exits 2.
# Times themselves are never judged.
set -u
cd "$(dirname "$0")/../.."
harness=${BUILD:-build}/harness
[ -x "$harness" ] || harness=./harness
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
fail() { echo "$1"; [ -f "${2:-}" ] && cat "$2"; exit 1; }

"$harness" bench-kernels --device cpu --case "gemm: tiny qkv" >"$out/table" 2>&1 || fail "the table failed" "$out/table"
grep -q '^ceilings, measured now: copy of .* GB/s .*, gemm 512^3 .* TFLOP/s$' "$out/table" || fail "no ceilings" "$out/table"
grep -q '^operation  *case  *median us  *p10 us  *p90 us  *MB  *GFLOP  *floor us  *x floor' "$out/table" ||
    fail "columns are missing" "$out/table"
# bf16: (32*256 + 768*256 + 32*768) * 2 bytes; 2*32*768*256 FLOPs.
awk '/^gemm +tiny qkv / {
        found = 1
        for (i = 4; i <= NF; i++) if ($i !~ /^[0-9]+(\.[0-9]+)?$/) exit 1
        if (!($4 > 0 && $5 <= $4 && $4 <= $6 && $7 == "0.459" && $8 == "0.013" && $9 > 0 && $10 > 0)) exit 1
     } END { exit !found }' "$out/table" || fail "the row of tiny qkv is wrong" "$out/table"

"$harness" bench-kernels --device cpu --case "state_merge: tiny merge" --jsonl >"$out/jsonl" 2>&1 || fail "--jsonl failed" "$out/jsonl"
[ "$(wc -l <"$out/jsonl")" = 2 ] || fail "two JSON lines expected: ceilings and one case" "$out/jsonl"
head -1 "$out/jsonl" | grep -q '"bytes_per_second":[0-9.e+]*,.*"flops_per_second":[0-9.e+]*' || fail "no rates" "$out/jsonl"
# 256 states: three vectors of 64 bf16 and three fp32 log-sum-exps each.
tail -1 "$out/jsonl" | grep -q '"case":"tiny merge",.*"samples":2[0-9],.*"bytes":101376,"flops":0,' ||
    fail "the row of tiny merge is wrong" "$out/jsonl"
grep -Eiq ':(null|-?nan|-?inf)' "$out/jsonl" && fail "a number is not finite" "$out/jsonl"

"$harness" bench-kernels --device cpu --case "attend: 7b 128k batch 8" >"$out/large" 2>&1 || fail "a large case failed" "$out/large"
grep -Eq '^attend +7b 128k batch 8 +skipped: needs [0-9]+ MB, 256 MB is the limit' "$out/large" ||
    fail "a large case is not skipped on the CPU" "$out/large"

"$harness" bench-kernels --device cpu --case "no such case" >"$out/none" 2>&1
[ $? = 2 ] || fail "an unknown case must exit 2" "$out/none"
exit 0
