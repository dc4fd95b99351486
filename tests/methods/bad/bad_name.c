/* A name that could not become a file name or a column. */
#include "tests/methods/bad/bad.h"

static const mb_method method = {SOUND, HOOKS, .name = "My Method"};
ENTRY(&method)
