/* Selects a key that does not exist. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
    s->set.ids[s->options.k - 1] = call->max_prefix;
}
NO_ATTEND
METHOD("bad_range")
