/* Counters by layer that nothing reports. */
#include "tests/methods/bad/bad.h"

static const mb_counter_map rows[] = {{"hits", "", "higher", "mean", "hits", MB_BY_LAYER}, {0}};
static const mb_method method = {SOUND, HOOKS, .name = "grid_silent", .maps = rows};
ENTRY(&method)
