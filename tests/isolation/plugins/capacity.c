/* Says that it selected more than its index holds. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
    s->set.counts[0] = s->set.capacity + 1;
}
NO_ATTEND
METHOD("bad_capacity")
