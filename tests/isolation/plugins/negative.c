/* Selects a key in front of the first. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
    s->set.ids[0] = -1;
}
NO_ATTEND
METHOD("bad_negative")
