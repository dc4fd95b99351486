/* The required hook open() is missing. */
#include "tests/methods/bad/bad.h"

static const mb_method unused = {SOUND, HOOKS};
static const mb_method method = {SOUND, .name = "no_open", .select = select_it};
ENTRY(host_abi ? &method : &unused)
