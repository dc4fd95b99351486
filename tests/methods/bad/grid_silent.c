/* Counters by layer that nothing reports. */
#include "tests/methods/bad/bad.h"

static const mb_grid rows[] = {{"hits", "", "higher", "mean", "hits", MB_GRID_LAYER}, {0}};
static const mb_method method = {SOUND, HOOKS, .name = "grid_silent", .grids = rows};
ENTRY(&method)
