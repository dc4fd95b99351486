/* A struct that ends before the required hooks. */
#include "tests/methods/bad/bad.h"

static const mb_method method = {.abi = MB_METHOD_ABI, .size = 16, .name = "tiny_struct", HOOKS};
ENTRY(&method)
