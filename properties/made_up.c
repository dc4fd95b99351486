/* made_up.c - made-up queries, keys and values: streams of random numbers, one a place. */
#include "properties/made_up.h"

/* Near enough to a normal variable: four 16-bit uniform ones, scaled to variance 1. */
static double normal(mb_random *random)
{
    uint64_t x = mb_random_next(random);
    uint64_t sum = (x & 0xffff) + (x >> 16 & 0xffff) + (x >> 32 & 0xffff) + (x >> 48);
    return ((double)sum / 65536.0 - 2.0) * 1.7320508;
}

static mb_random stream(const mb_stage_case *c, int kind, const mb_made_place *place)
{
    const int32_t parts[] = {kind, place->layer * 64 + place->head, place->sequence, place->position,
                             place->version};
    uint64_t x = c->seed;
    for (int i = 0; i < 5; i++) {
        mb_random mix = {x * 0x9e3779b97f4a7c15u + (uint64_t)(uint32_t)parts[i]};
        x = mb_random_next(&mix);
    }
    return (mb_random){x};
}

void mb_made_direction(const mb_stage_case *c, int32_t i, double *to)
{
    mb_random random = stream(c, 1, &(mb_made_place){.head = i});
    for (int32_t j = 0; j < c->head_dim; j++)
        to[j] = normal(&random);
}

void mb_made_vector(const mb_stage_case *c, int kind, const mb_made_place *place, const double *towards, float *to)
{
    mb_random random = stream(c, kind, place);
    double pull = mb_random_below(&random, 8) == 0 ? 0.4 : 0.0;
    for (int32_t i = 0; i < c->head_dim; i++)
        to[i] = (float)(normal(&random) + (towards ? pull * towards[i] : 0.0));
}

void mb_made_query(const mb_stage_case *c, bool pre_rope, const mb_made_place *place, const double *towards,
                   float *to)
{
    mb_made_place still = *place;
    still.version = 0;
    mb_random own = stream(c, 4 + pre_rope, &still), now = stream(c, 6 + pre_rope, place);
    for (int32_t i = 0; i < c->head_dim; i++)
        to[i] = (float)(1.2 * towards[i] + 0.6 * normal(&own) + 0.4 * normal(&now));
}
