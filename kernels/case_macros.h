/* case_macros.h - how cases and their recipes are written down; for the files of cases alone. */
#ifndef MB_KERNELS_CASE_MACROS_H
#define MB_KERNELS_CASE_MACROS_H

#include "kernels/cases.h"

#define TEST .use = MB_CASE_TEST
#define BENCH .use = MB_CASE_BENCH
#define HEADS(query, kv, dim) .query_heads = query, .kv_heads = kv, .head_dim = dim
#define LENGTHS(b, ...) .batch = b, .prefix = {__VA_ARGS__}
#define EQUAL(b, length) LENGTHS(b, length, length, length, length)
#define SHAPE(rows_, columns, depth) .m = rows_, .n = columns, .k = depth
#define EXPERTS(all, each, groups_, kept) .experts = all, .chosen = each, .groups = groups_, .groups_kept = kept
#define CASE(name_, operation_) .name = name_, .operation = MB_OP_##operation_
#define MB_CASE_RECIPE(name) [MB_OP_##name] = name

#endif
