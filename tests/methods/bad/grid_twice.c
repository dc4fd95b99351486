/* Two grids of one name. */
#include "tests/methods/bad/bad.h"

static const mb_grid rows[] = {{"hits", "", "higher", "mean", "hits", MB_GRID_LAYER},
                               {"hits", "", "higher", "mean", "hits", MB_GRID_STEP},
                               {0}};
static const mb_method method = {SOUND, HOOKS, .name = "grid_twice", .grids = rows};
ENTRY(&method)
