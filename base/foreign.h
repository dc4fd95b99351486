/*
 * foreign.h - code that is not ours, run in this process: what a plug-in may do to the process around it is
 * undone, and it cannot end the program.
 *
 *     mb_foreign guard;
 *     mb_foreign_enter(&guard, MB_FOREIGN_CALL);
 *     int rc = MB_FOREIGN_LEFT(&guard) ? -1 : method->select(...);
 *     mb_foreign_leave(&guard);        // guard.left: it called exit(), _exit() or abort()
 *
 * exit(), _Exit(), _exit(), quick_exit() and abort() are defined by this program, so that a library that was
 * loaded calls ours: inside of a guard they come back to MB_FOREIGN_LEFT(). Memory and locks that the code held
 * then are lost. A signal or a system call made by hand is not caught; whoever must be safe from those uses a
 * worker.
 */
#ifndef MB_FOREIGN_H
#define MB_FOREIGN_H

#include "base/base.h"

#include <fenv.h>
#include <setjmp.h>

/* What a process has one of, as it was: working folder, file mask, signal handlers, standard
 * streams. Putting it back takes some microseconds. NULL (no memory, or nothing to put back) is fine everywhere.
 */
typedef struct mb_process mb_process;
mb_process *mb_process_save(void);
void mb_process_restore(const mb_process *process);
void mb_process_free(mb_process *process);

typedef enum mb_foreign_extent {
    MB_FOREIGN_CALL, /* floating-point mode and locale: some hundred nanoseconds, for a hook that is timed */
    MB_FOREIGN_WHOLE /* also what mb_process_save() keeps */
} mb_foreign_extent;

typedef struct mb_foreign {
    jmp_buf jump;
    struct mb_foreign *outer;
    mb_process *process; /* of MB_FOREIGN_WHOLE */
    fenv_t floats;
    void *locale;
    bool left;        /* result: it meant to end the program */
    const char *call; /* by which function */
    int exit_code;    /* with which code; of abort() 134 */
} mb_foreign;

void mb_foreign_enter(mb_foreign *guard, mb_foreign_extent extent);
/* In the function that called mb_foreign_enter(); true: the code meant to end the program. */
#define MB_FOREIGN_LEFT(guard) (_setjmp((guard)->jump) != 0)
/* Ends the process, from a signal handler too, whatever guard it is in. */
__attribute__((noreturn)) void mb_foreign_end(int exit_code);
/* Whether the code meant to end the program, and a sentence about it in err, which may be NULL. */
bool mb_foreign_failed(const mb_foreign *guard, mb_error *err);
/* Puts back what was changed. A child that the code forked ends here: it is nobody's run. */
void mb_foreign_leave(mb_foreign *guard);

#endif
