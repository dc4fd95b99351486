/* Says that it selected more than its index holds. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)out;
    s->host->fill(s->host, call, s->set.counts, 1, sizeof *s->set.counts);
}
NO_ATTEND
METHOD("bad_capacity")
