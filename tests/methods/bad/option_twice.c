/* Two rows of one name. */
#include "tests/methods/bad/bad.h"

static const mb_option rows[] = {{"k", MB_OPTION_INT, 0, 1, 1, 9, NULL, "tokens", "budget"},
                                 {"k", MB_OPTION_INT, 8, 1, 1, 9, NULL, "tokens", "budget"},
                                 {0}};
static const mb_method method = {SOUND, HOOKS, .name = "option_twice", .options = rows, .options_size = 16};
ENTRY(&method)
