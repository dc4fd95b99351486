#!/usr/bin/env bash
# Code of a plug-in that has to run in the program's own process, because it is timed there or because it was loaded:
# it ends nothing but its own cell, and what it does to the process (working folder, streams, signals, locale, float
# mode) is undone. A worker that was stopped is no hung one, and its children end with it.
. "$(dirname "$0")/../driver/lib.sh"
# NAME, C text in front of a sound method, what it does in select(); in_program: true outside of workers and probes
build() {
    { echo '#define _GNU_SOURCE'; echo '#include "tests/isolation/plugins/bad.h"'
      echo '#include <fcntl.h>'; echo '#include <locale.h>'; echo '#include <sys/stat.h>'
      echo 'static int in_program(void) { char line[64] = ""; int fd = open("/proc/self/cmdline", O_RDONLY);
            ssize_t n = read(fd, line, 63); close(fd); return n < 9 || memchr(line, 0, 60) == NULL ||
            (strcmp(line + strlen(line) + 1, "worker") && strcmp(line + strlen(line) + 1, "probe")); }'
      echo "$2"
      echo 'static void misbehave(state *s, const mb_call *call, mb_selection *out) { (void)s, (void)out, (void)call; BODY; }'
      echo 'NO_ATTEND'; echo "METHOD(\"bad_$1\")"; } >"$scratch/$1.c"
    ${CC:-cc} -std=c11 -fPIC -shared -I. -DBODY="${3:-(void)in_program()}" -o "$scratch/$1.so" "$scratch/$1.c" ||
        fail "$1 does not build"
}
build leaves '' 'if (in_program()) exit(0)'
build ends '' 'if (in_program()) _exit(0)'
build gives_up '' 'if (in_program()) abort()'
build upsets '__attribute__((constructor)) static void begin(void) { if (chdir("/") == 0) setlocale(LC_ALL, "C.UTF-8"); (void)in_program(); }' \
    'do { if (chdir("/") == 0) umask(0777); close(1); close(2); signal(SIGINT, SIG_IGN); setlocale(LC_ALL, "C.UTF-8"); } while (0)'
build stops '' 'do { if (call->layer == LAYER && call->block == 0) raise(SIGSTOP); } while (0)'
build breeds '' 'do { if (system("sleep 321 &")) (void)0; } while (0)'

cat >"$scratch/run.json" <<'JSON'
{"name": "guard", "seed": 3, "model": "models/tiny", "plugin_seconds": 1, "max_new_tokens": 32,
 "methods": {"exact": {}, "bad_leaves": {}, "bad_ends": {}, "bad_gives_up": {}, "bad_upsets": {}},
 "sampler": {"schedule": "fixed", "steps": 2}, "threads": 1, "passes": ["latency"], "latency": {"contexts": [64], "steps": [2], "blocks_max": 2, "seconds": 0.1, "prefill": false}}
JSON
plugins=()
for name in leaves ends gives_up upsets stops breeds; do plugins+=(--plugin "$scratch/$name.so"); done
relative=build-guard-$$.db # in the working folder, which a plug-in leaves
trap 'rm -rf "$scratch"; rm -f "$relative"*' EXIT
expect_exit 3 '3 samples failed' ./harness --config "$scratch/run.json" --out "" --db "$relative" "${plugins[@]}"
query() { sqlite3 -readonly "$relative" "$1"; }
[ "$(query "SELECT group_concat(method) FROM (SELECT DISTINCT method FROM v_latency ORDER BY 1)")" = bad_upsets,exact ] ||
    fail "the latency pass did not time exact and bad_upsets"
query "SELECT method, reason FROM v_failures WHERE pass = 'latency' AND status = 'failed' ORDER BY 1" >"$scratch/reasons"
for pattern in 'bad_ends.*it called _exit\(0\)' 'bad_gives_up.*it called abort\(134\)' 'bad_leaves.*it called exit\(0\)'; do
    grep -qE "$pattern" "$scratch/reasons" || { fail "no reason like /$pattern/"; cat "$scratch/reasons"; }
done
grep -q 'stored in' "$scratch/out" || fail "the program lost its standard output to a plug-in"
[ "$(find . -maxdepth 1 -name "$relative*" -perm -u+rw | head -1)" ] || fail "the database has a plug-in's file mask"

# Stopped on every block: continued, and so sound; what it started does not outlive it.
expect_exit 0 '' ./harness --config "$scratch/run.json" --quiet --out "" --db "$scratch/stop.db" "${plugins[@]}" \
    --methods bad_stops,bad_breeds --set 'passes=["quality"]' \
    --set 'tasks=[{"task": "niah_multikey", "lengths": [256], "depths": [0], "samples": 1}]'
[ "$(sqlite3 -readonly "$scratch/stop.db" "SELECT count(*) FROM v_samples WHERE status = 'ok'")" = 2 ] ||
    fail "a stopped process is not continued"
[ -z "$(pgrep -f '^sleep 321$')" ] || fail "a program that a plug-in started is left over"
exit $((failures > 0))
