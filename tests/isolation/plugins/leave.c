/* Leaves the program from within a hook, as a library might on an error. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
    exit(0);
}
NO_ATTEND
METHOD("bad_leave")
