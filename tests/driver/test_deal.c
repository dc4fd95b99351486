/*
 * test_deal.c - dealing samples to shards: every sample to one shard, the same in every process, even by tokens.
 */
#include "driver/pass/deal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/base.h"

#include <stdlib.h>

static void evens_out(void **state)
{
    (void)state;
    for (int32_t shards = 1; shards <= 70; shards += 23) {
        mb_deal *deal = mb_deal_new(shards);
        mb_random random = mb_random_seed(5);
        int64_t largest = 0, sum = 0, low = INT64_MAX, high = 0;
        for (int i = 0; i < 3000; i++) {
            int64_t tokens = 1 + (int64_t)mb_random_below(&random, 20000);
            int32_t shard = mb_deal_next(deal, tokens);
            assert_in_range(shard, 0, shards - 1);
            largest = tokens > largest ? tokens : largest;
            sum += tokens;
        }
        for (int32_t i = 0; i < shards; i++) {
            int64_t load = mb_deal_load(deal, i);
            low = load < low ? load : low;
            high = load > high ? load : high;
            sum -= load;
        }
        assert_int_equal(sum, 0);
        assert_true(high - low <= largest);
        mb_deal_free(deal);
    }
}

/* The plain rule, with a look at every shard for every sample. */
static void follows_the_rule(void **state)
{
    (void)state;
    enum { SHARDS = 7 };
    int64_t loads[SHARDS] = {0};
    mb_deal *deal = mb_deal_new(SHARDS);
    mb_random random = mb_random_seed(9);
    for (int i = 0; i < 2000; i++) {
        int64_t tokens = 1 + (int64_t)mb_random_below(&random, 40); /* small: many are equal */
        int32_t least = 0;
        for (int32_t s = 1; s < SHARDS; s++)
            least = loads[s] < loads[least] ? s : least;
        loads[least] += tokens;
        assert_int_equal(mb_deal_next(deal, tokens), least);
    }
    mb_deal_free(deal);
    assert_null(mb_deal_new(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(evens_out), cmocka_unit_test(follows_the_rule)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
