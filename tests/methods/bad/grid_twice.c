/* Two maps of one name. */
#include "tests/methods/bad/bad.h"

static const mb_counter_map rows[] = {
    {"hits", "", "higher", "mean", "hits", MB_BY_LAYER}, {"hits", "", "higher", "mean", "hits", MB_BY_STEP}, {0}};
static const mb_method method = {SOUND, HOOKS, .name = "grid_twice", .maps = rows};
ENTRY(&method)
