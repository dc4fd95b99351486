/* Launches a kernel that computes longer than anybody waits; its hook comes back at once. */
#include "tests/isolation/plugins/bad.h"

void launch_spin(void *stream);

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)out;
    launch_spin(call->stream);
}
NO_ATTEND
METHOD("bad_spin")
