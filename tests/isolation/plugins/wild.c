/* Overwrites whatever lies behind its index, from the host: on a GPU its index is no memory of the host's at all.
 */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)call, (void)out;
    memset(s->set.ids, 0x7f, (size_t)64 << 20);
}
NO_ATTEND
METHOD("bad_wild")
