/* Calls a function that nobody has: found when loading, not in the middle of a run. */
#include "tests/methods/bad/bad.h"

int missing_everywhere(void);

static int open_missing(void **self, const mb_host *host, const mb_shape *shape, const void *options, char *err,
                        size_t err_cap)
{
    return open_it(self, host, shape, options, err, err_cap) + missing_everywhere();
}

static const mb_method method = {SOUND, .name = "undefined", .open = open_missing, .select = select_it};
ENTRY(&method)
