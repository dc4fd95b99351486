/*
 * deal.c - dealing samples to shards. A heap with the least loaded shard on top: a run of a thousand shards deals
 * as fast as one of two.
 */
#include "driver/pass/deal.h"

#include <stdbool.h>
#include <stdlib.h>

typedef struct hand {
    int64_t load;
    int32_t shard;
} hand;

struct mb_deal {
    int32_t count;
    hand heap[]; /* [count], heap[0] is next */
};

static bool is_before(hand a, hand b)
{
    return a.load < b.load || (a.load == b.load && a.shard < b.shard);
}

mb_deal *mb_deal_new(int32_t shards)
{
    mb_deal *deal = shards < 1 ? NULL : malloc(sizeof *deal + (size_t)shards * sizeof *deal->heap);
    if (!deal)
        return NULL;
    deal->count = shards;
    for (int32_t i = 0; i < shards; i++)
        deal->heap[i] = (hand){0, i};
    return deal;
}

int32_t mb_deal_next(mb_deal *deal, int64_t tokens)
{
    hand top = deal->heap[0];
    int32_t shard = top.shard, at = 0;
    top.load += tokens;
    for (int32_t child; (child = 2 * at + 1) < deal->count; at = child) {
        if (child + 1 < deal->count && is_before(deal->heap[child + 1], deal->heap[child]))
            child++;
        if (!is_before(deal->heap[child], top))
            break;
        deal->heap[at] = deal->heap[child];
    }
    deal->heap[at] = top;
    return shard;
}

int64_t mb_deal_load(const mb_deal *deal, int32_t shard)
{
    for (int32_t i = 0; i < deal->count; i++)
        if (deal->heap[i].shard == shard)
            return deal->heap[i].load;
    return 0;
}

void mb_deal_free(mb_deal *deal)
{
    free(deal);
}
