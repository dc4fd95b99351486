/* Closes every file of its process, the harness's own among them, and goes on. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call, (void)out;
    for (int fd = 0; fd < 1024; fd++)
        close(fd);
    for (;;)
        pause();
}
NO_ATTEND
METHOD("bad_close")
