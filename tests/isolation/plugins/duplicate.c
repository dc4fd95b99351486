/* Selects the same key twice. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)out;
    s->host->copy(s->host, call, s->set.ids + 1, s->set.ids, sizeof *s->set.ids);
}
NO_ATTEND
METHOD("bad_duplicate")
