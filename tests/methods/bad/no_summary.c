/* Nothing to print in `list methods`. */
#include "tests/methods/bad/bad.h"

static const mb_method method = {.abi = MB_METHOD_ABI,
                                 .size = sizeof(mb_method),
                                 .version = "1",
                                 .reference = "r",
                                 HOOKS,
                                 .name = "no_summary"};
ENTRY(&method)
