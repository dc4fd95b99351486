#!/usr/bin/env bash
# Code of a plug-in runs in a process of its own before this one loads it: one that crashes or leaves while it is loaded
# is refused with a sentence, and commands that need no method do not load any. A worker whose answer belongs to another
# question is ended.
. "$(dirname "$0")/../driver/lib.sh"
build() { # NAME, C text in front of a sound method
    { echo '#include "tests/isolation/plugins/bad.h"'; echo "$2"
      echo 'static void misbehave(state *s, const mb_call *call, mb_selection *out) { (void)s, (void)out, (void)call; BODY; }'
      echo 'NO_ATTEND'; echo "METHOD(\"bad_$1\")"; } >"$scratch/$1.c"
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -fPIC -shared -I. -DBODY="${3:-(void)0}" -o "$scratch/$1.so" "$scratch/$1.c" ||
        fail "$1 does not build"
}
build leave '__attribute__((constructor)) static void begin(void) { exit(0); }'
build crash '__attribute__((constructor)) static void begin(void) { raise(SIGSEGV); }'
build end '__attribute__((destructor)) static void end(void) { raise(SIGSEGV); }'
build sound ''
expect_exit 2 'plug-in .*leave.so: it ended the program while it was loaded: exit\(0\)' \
    ./harness --plugin "$scratch/leave.so" list methods
expect_exit 2 'plug-in .*crash.so: it crashed while it was loaded or unloaded: signal 11' \
    ./harness --plugin "$scratch/crash.so" list methods
expect_exit 2 'signal 11' ./harness --plugin "$scratch/end.so" help bad_end
expect_exit 0 '' ./harness --plugin "$scratch/sound.so" help bad_sound
# Nothing is loaded where no method is needed: the database is missing, and that is what is said.
for name in leave crash; do
    expect_exit 2 'none.db' ./harness --plugin "$scratch/$name.so" report "$scratch/none.db"
done
expect_exit 2 'no use by itself' ./harness probe

# A worker that forks answers twice: the second answer is nobody's. A crash is seen though a child holds the socket.
# By system call: a child of fork() ends with the hook that made it.
build twice '#include <sys/syscall.h>' 'syscall(SYS_fork)'
build held '#include <sys/syscall.h>' 'do { if (syscall(SYS_fork) == 0) { sleep(60); _exit(0); } raise(SIGSEGV); } while (0)'
cat >"$scratch/run.json" <<'JSON'
{"name": "answers", "seed": 3, "model": "models/tiny", "plugin_seconds": 50, "max_new_tokens": 32,
 "tasks": [{"task": "niah_multikey", "lengths": [256], "depths": [0, 100], "samples": 1}],
 "methods": {"bad_sound": {}, "bad_twice": {}, "bad_held": {}}, "sampler": {"schedule": "fixed", "steps": 4},
 "passes": ["quality"]}
JSON
expect_exit 3 'samples failed' ./harness --config "$scratch/run.json" --quiet --out "" --db "$scratch/run.db" \
    --plugin "$scratch/sound.so" --plugin "$scratch/twice.so" --plugin "$scratch/held.so"
reasons() { sqlite3 -readonly "$scratch/run.db" "SELECT count(*) FROM v_failures WHERE what = 'sample' AND reason LIKE '$1'"; }
[ "$(reasons '%bad_twice answered question % with the answer to question %')" -ge 1 ] || fail "an answer to another question"
[ "$(reasons '%bad_held crashed in select%signal 11%')" = 2 ] || fail "a crash that a child hides"
exit $((failures > 0))
