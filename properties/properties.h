/*
 * properties.h - what every method must keep, whatever it chooses and on whatever device: each function plays a
 * few small cases and returns 0, or negative with the first breach as a sentence. A built-in, a plug-in and a
 * backend inherit all of them: `make test` runs them for everything in the registry, `./harness test NAME` for one
 * method over its options (sweep.h).
 */
#ifndef MB_PROPERTIES_H
#define MB_PROPERTIES_H

#include "properties/stage.h"

typedef int mb_property_fn(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err);

typedef struct mb_property {
    const char *name;
    mb_property_fn *check;
} mb_property;

/* Ends with name NULL. options: the configuration under test; the properties change its "k" where they need to. */
extern const mb_property mb_properties[];

/* 1; 0: the method itself says that it cannot serve such a model with these options, err says why; negative: it
 * cannot be opened. */
int mb_property_supported(const mb_stage_env *env, const mb_method *method, const void *options, mb_error *err);

/* Some layer of some step is sparse, else the others would test nothing. */
mb_property_fn mb_property_sparse;
/* A budget of at least the context gives exact attention; so does a method without a budget that is lossless, and,
 * while the queries of a block stay the same, one that reuses states. */
mb_property_fn mb_property_full_budget;
/* A larger budget never captures less mass, per sequence, head, layer and step. */
mb_property_fn mb_property_monotone;
/* One token less than the context keeps the budget; the context's length and one more give exact attention, where
 * keys are chosen one by one. */
mb_property_fn mb_property_edges;
/* The k budget is kept; ids ascend, are distinct and inside the prefix; no hook allocates. */
mb_property_fn mb_property_index_valid;
/* Permuting KV heads permutes the index. */
mb_property_fn mb_property_head_permutation;
/* NaN in unselected values changes nothing. */
mb_property_fn mb_property_poison;
/* Two runs are bit-equal. */
mb_property_fn mb_property_repeat;
/* Contexts shorter than the budget, not a multiple of any page, of one token, and empty. */
mb_property_fn mb_property_contexts;
/* 1, 4, 6, 7 and 8 query heads a KV head. */
mb_property_fn mb_property_groups;

#endif
