/* Crashes before it ever runs. */
#define BREAK_OPEN
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
}
NO_ATTEND
METHOD("bad_open")
