/* A choice of nothing. */
#include "tests/methods/bad/bad.h"

static const mb_option rows[] = {{"rule", MB_OPTION_CHOICE, 0, 0, 0, 0, NULL, "", "rule"}, {0}};
static const mb_method method = {SOUND, HOOKS, .name = "option_choice", .options = rows, .options_size = 8};
ENTRY(&method)
