/* Returns NaN in a state of its own. */
#include "tests/isolation/plugins/bad.h"

static void misbehave(state *s, const mb_call *call, mb_selection *out)
{
    (void)s, (void)call;
    out->answer = MB_ATTEND;
}

static void misbehave_attend(state *s, const mb_call *call, void *out, float *lse)
{
    (void)lse;
    s->host->fill(s->host, call, out, 0xff, 8); /* NaN in fp32 and in bf16 */
}
METHOD("bad_nan")
