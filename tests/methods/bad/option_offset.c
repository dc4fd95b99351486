/* An option that would be written behind the option struct. */
#include "tests/methods/bad/bad.h"

static const mb_option rows[] = {{"k", MB_OPTION_INT, 8, 1, 1, 9, NULL, "tokens", "budget"}, {0}};
static const mb_method method = {SOUND, HOOKS, .name = "option_offset", .options = rows, .options_size = 12};
ENTRY(&method)
