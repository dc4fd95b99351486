/* Never returns. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
    for (;;)
        pause();
}
NO_ATTEND
METHOD("bad_hang")
