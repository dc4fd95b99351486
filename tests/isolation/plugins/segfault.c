/* Writes to an address that nobody owns. */
#include "tests/isolation/plugins/bad.h"

static volatile uintptr_t nowhere = 8;

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
    *(volatile int *)nowhere = 1;
}
NO_ATTEND
METHOD("bad_segfault")
