/* Overwrites whatever lies behind its index, in the host's memory. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
    memset(s->set.ids, 0x7f, (size_t)64 << 20);
}
NO_ATTEND
METHOD("bad_wild")
