/* Selects in another order than ascending. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
    int32_t first = s->set.ids[0];
    s->set.ids[0] = s->set.ids[1];
    s->set.ids[1] = first;
}
NO_ATTEND
METHOD("bad_descend")
