/* Selects a key that does not exist. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)out;
    s->host->fill(s->host, call, s->set.ids + s->options.k - 1, 0x7f, sizeof *s->set.ids);
}
NO_ATTEND
METHOD("bad_range")
