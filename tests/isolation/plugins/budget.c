/* Reads more than its option k says. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)out;
    s->host->top_k(s->host, call, s->scores, s->set.capacity, NULL, &s->set);
}
NO_ATTEND
METHOD("bad_budget")
