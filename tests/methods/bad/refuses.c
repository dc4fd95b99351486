/* Says itself that it cannot serve this ABI. */
#include "tests/methods/bad/bad.h"

static const mb_method unused = {SOUND, HOOKS};
ENTRY(host_abi == 12345 ? &unused : NULL)
