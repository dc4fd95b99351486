/* A counter by nothing at all. */
#include "tests/methods/bad/bad.h"

static const mb_counter_map rows[] = {{"hits", "", "higher", "mean", "hits", 0}, {0}};
static const mb_method method = {SOUND, HOOKS, .name = "grid_axes", .maps = rows};
ENTRY(&method)
