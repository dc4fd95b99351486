/* Writes one word behind its ids. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)out;
    s->host->fill(s->host, call, s->set.ids + s->shape.batch * s->shape.kv_heads * s->set.capacity, 7,
                  sizeof *s->set.ids);
}
NO_ATTEND
METHOD("bad_behind")
