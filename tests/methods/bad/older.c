/* Not bad at all: built against a shorter struct. What lies behind its end is not a hook and must not be read. */
#include "tests/methods/bad/bad.h"

static const mb_method method = {.abi = MB_METHOD_ABI,
                                 .size = offsetof(mb_method, observe),
                                 .version = "0.9",
                                 .summary = "s",
                                 .reference = "r",
                                 HOOKS,
                                 .name = "older",
                                 .observe = (int (*)(void *, const mb_call *, mb_error *))(uintptr_t)1,
                                 .step_end = (int (*)(void *, const mb_call *, mb_error *))(uintptr_t)1};
ENTRY(&method)
