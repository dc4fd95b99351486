#!/usr/bin/env bash
# What a plug-in says about itself is checked: the tokens it read to choose, its counters, that it leaves keys and
# values alone, that it attends over the index that it shows. Its word that it equals exact attention is not taken.
# Every false claim costs the plug-in's own rows and nobody else's.
. "$(dirname "$0")/../driver/lib.sh"
build() { # NAME, C text in front of a sound method, what it does in select(), in attend(), to its struct
    { echo '#define LAYER call->layer'; echo '#define STEP call->step'; echo '#define mb_method_entry plain_entry'
      echo '#include "tests/isolation/plugins/bad.h"'; echo "$2"
      echo "static void misbehave(state *s, const mb_call *call, mb_selection *out) { (void)s, (void)out, (void)call; $3; }"
      echo 'static void misbehave_attend(state *s, const mb_call *call, void *out, float *lse)'
      echo "{ (void)s, (void)call, (void)out, (void)lse; $4; }"
      echo "METHOD(\"bad_$1\")"; echo '#undef mb_method_entry'
      echo 'const mb_method *mb_method_entry(uint32_t abi); const mb_method *mb_method_entry(uint32_t abi)'
      echo "{ static mb_method m; m = method; $5; return abi == MB_METHOD_ABI ? &m : NULL; }"; } >"$scratch/$1.c"
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -fPIC -shared -I. -o "$scratch/$1.so" "$scratch/$1.c" || fail "$1 does not build"
}

build nan_read '' 'out->select_tokens = NAN'
build negative_read '' 'out->select_tokens = -1'
build writes '' 'if (call->layer == 1 && call->block == 0) s->host->fill(s->host, call, (void *)(uintptr_t)call->k, 0x3f, 64)'
build writes_v '' 'if (call->layer == 2) s->host->fill(s->host, call, (void *)(uintptr_t)call->v, 0x3f, 64)'
# It shows k keys and attends over all: lists of its own in memory that the CPU backend takes for the device's.
build wide 'static int32_t all[64 * 4096], counts[64]; static mb_page_set every;' 'out->answer = MB_ATTEND' \
    'for (int32_t h = 0; h < s->shape.kv_heads; h++) { counts[h] = call->max_prefix; for (int32_t i = 0; i < 4096; i++) all[h * 4096 + i] = i; }
     every = s->set; every.ids = all; every.counts = counts; every.capacity = 4096;
     s->host->attend_pages(s->host, call, &every, MB_SCOPE_PREFIX, NULL, out, lse)'
counters() { echo "static const mb_counter counters[] = {$1, {0}};
static int report(void *self, int (*read)(const mb_host *, void *, const void *, size_t), double *values, mb_error *err)
{ (void)self, (void)read, (void)err; values[0] = INFINITY; return 0; }"; }
one='{"seen", "tokens", "higher", "mean", "what it saw"}'
build infinite "$(counters "$one")" '' '' 'm.counters = counters; m.report = report'
build twice "$(counters "$one, $one")" '' '' 'm.counters = counters; m.report = report'
build lossless '' '' '' 'm.caps |= MB_CAP_LOSSLESS'
expect_exit 2 'twice.so: method "bad_twice": counter "seen": the table has two rows of this name' \
    ./harness --plugin "$scratch/twice.so" list methods

# A terminal is told no escape sequence of a plug-in's.
build words '' '' '' 'm.summary = "red \033[31m\a and more"; m.reference = "\033]0;title\a"'
for command in "list methods" "help bad_words"; do
    expect_exit 0 '' ./harness --plugin "$scratch/words.so" $command
    grep -qF 'red \x1b[31m\x07 and more' "$scratch/out" || fail "$command hides the words of a plug-in"
    LC_ALL=C grep -q "$(printf '[\001-\010\013-\037]')" "$scratch/out" && fail "$command prints control characters"
done

cat >"$scratch/run.json" <<'JSON'
{"name": "claims", "seed": 3, "model": "models/tiny", "threads": 1, "max_new_tokens": 32,
 "tasks": [{"task": "niah_multikey", "lengths": [256], "depths": [0], "samples": 1}],
 "methods": {"bad_lossless": {}, "exact": {}, "bad_nan_read": {}, "bad_negative_read": {}, "bad_writes": {},
             "bad_writes_v": {}, "bad_wide": {}, "bad_infinite": {}},
 "sampler": {"schedule": "fixed", "steps": 4}, "passes": ["quality"]}
JSON
plugins=()
for name in nan_read negative_read writes writes_v wide infinite lossless; do plugins+=(--plugin "$scratch/$name.so"); done
expect_exit 3 '6 samples failed' ./harness --config "$scratch/run.json" --quiet --out "" --db "$scratch/run.db" "${plugins[@]}"
sqlite3 -readonly "$scratch/run.db" "SELECT method, reason FROM v_failures WHERE what = 'sample'" >"$scratch/reasons"
while read -r pattern; do
    grep -qE "$pattern" "$scratch/reasons" || { fail "no reason like /$pattern/"; cat "$scratch/reasons"; }
done <<'LIST'
^bad_nan_read.*negative or no number \(select_tokens\)
^bad_negative_read.*negative or no number \(select_tokens\)
^bad_writes\|.*wrote into keys or values of the prompt in layer 1
^bad_writes_v.*wrote into keys or values of the prompt in layer 2
^bad_wide.*over its index
^bad_infinite.*counter seen is infinite
LIST
query() { sqlite3 -readonly "$scratch/run.db" "$1"; }
[ "$(query "SELECT group_concat(DISTINCT config) FROM v_samples WHERE is_reference")" = exact ] ||
    fail "the reference is not exact"
[ "$(query "SELECT count(*) FROM v_samples WHERE status = 'ok' AND method IN ('exact', 'bad_lossless')")" = 2 ] ||
    fail "rows of the sound methods are missing"
exit $((failures > 0))
