/* Calls a function that nobody has: found when loading, not in the middle of a run. */
#include "tests/methods/bad/bad.h"

int missing_everywhere(void);

static int open_missing(void **self, const mb_host *host, const mb_shape *shape, const void *options,
                        mb_error *err)
{
    return open_it(self, host, shape, options, err) + missing_everywhere();
}

static const mb_method method = {SOUND, .name = "undefined", .open = open_missing, .select = select_it};
ENTRY(&method)
