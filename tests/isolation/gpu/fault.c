/* Launches a kernel that writes to an address nobody owns: the context of its process is lost. */
#include "tests/isolation/plugins/bad.h"

void launch_write_nowhere(void *stream);

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)out;
    launch_write_nowhere(call->stream);
}
NO_ATTEND
METHOD("bad_fault")
