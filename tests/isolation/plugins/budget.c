/* Reads more than its option k says. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
    for (int32_t h = 0; h < s->shape.kv_heads; h++) {
        for (int32_t i = 0; i < s->set.capacity; i++)
            s->set.ids[h * s->set.capacity + i] = i;
        s->set.counts[h] = s->set.capacity;
    }
}
NO_ATTEND
METHOD("bad_budget")
