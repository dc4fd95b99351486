/* A default outside its own range. */
#include "tests/methods/bad/bad.h"

static const mb_option rows[] = {{"k", MB_OPTION_INT, 0, 0, 1, 9, NULL, "tokens", "budget"}, {0}};
static const mb_method method = {SOUND, HOOKS, .name = "option_preset", .options = rows, .options_size = 8};
ENTRY(&method)
