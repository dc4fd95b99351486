/* Selects in another order than ascending. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    int32_t *ids = s->set.ids, *spare = ids + s->set.capacity - 1; /* behind what is selected */
    (void)out;
    s->host->copy(s->host, call, spare, ids, sizeof *ids);
    s->host->copy(s->host, call, ids, ids + 1, sizeof *ids);
    s->host->copy(s->host, call, ids + 1, spare, sizeof *ids);
}
NO_ATTEND
METHOD("bad_descend")
