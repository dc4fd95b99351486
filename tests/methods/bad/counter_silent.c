/* Counters that nothing reports. */
#include "tests/methods/bad/bad.h"

static const mb_counter rows[] = {{"hits", "", "higher", "mean", "hits"}, {0}};
static const mb_method method = {SOUND, HOOKS, .name = "counter_silent", .counters = rows};
ENTRY(&method)
