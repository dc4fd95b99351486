/* Selects a key in front of the first. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)out;
    s->host->fill(s->host, call, s->set.ids, 0xff, sizeof *s->set.ids);
}
NO_ATTEND
METHOD("bad_negative")
