/*
 * deal.h - which shard a sample belongs to: the one that has got fewest tokens so far, the lowest of equals.
 *
 * A rule over the stream of samples and nothing else, so that every shard finds the same answer without asking
 * anybody. The loads of any two shards differ by the tokens of one sample at most. A sample's shard depends on the
 * samples before it only: tasks that are added behind the others move nothing.
 */
#ifndef MB_DEAL_H
#define MB_DEAL_H

#include <stdint.h>

typedef struct mb_deal mb_deal;

/* shards >= 1. NULL: no memory. */
mb_deal *mb_deal_new(int32_t shards);
/* Gives the next sample of the stream away; tokens > 0. The shard, from 0. */
int32_t mb_deal_next(mb_deal *deal, int64_t tokens);
/* Tokens that a shard has got. */
int64_t mb_deal_load(const mb_deal *deal, int32_t shard);
void mb_deal_free(mb_deal *deal); /* NULL is fine */

#endif
