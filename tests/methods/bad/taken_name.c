/* The name of a built-in method. */
#include "tests/methods/bad/bad.h"

static const mb_method method = {SOUND, HOOKS, .name = "exact"};
ENTRY(&method)
