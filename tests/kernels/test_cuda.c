/*
 * test_cuda.c - the suite on the GPU, in all storage types, and what only a GPU has: graphs that agree with eager
 * calls bit for bit, repeatability, the arena's refusal. Skipped, and saying so, on a machine without one.
 */
#include "tests/kernels/suite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* fp32: cuBLASLt and our kernels add in another order than the reference; bf16 attention rounds the
 * probabilities to bf16 before the product with V (relative error 2^-9 of the largest |v|). */
static const suite_bounds bounds_f32 = {.product = 2e-7 * 64,
                                        .attention = 4e-6,
                                        .lse = 4e-6,
                                        .mass = 4e-5,
                                        .probability = 4e-6,
                                        .slips = 0.01,
                                        .same_bits = false};
static const suite_bounds bounds_bf16 = {.product = 2e-7 * 64,
                                         .attention = 6e-3,
                                         .lse = 2e-5,
                                         .mass = 2e-3,
                                         .probability = 4e-6,
                                         .slips = 0.03,
                                         .same_bits = false};

/* f16 has three bits more than bf16. */
static const suite_bounds bounds_f16 = {.product = 2e-7 * 64,
                                        .attention = 1e-3,
                                        .lse = 2e-5,
                                        .mass = 2e-3,
                                        .probability = 4e-6,
                                        .slips = 0.03,
                                        .same_bits = false};

static bool open_device(suite *s, mb_type type)
{
    mb_error why = {0};
    mb_error err = {0};
    mb_device_options options = {.type = type, .arena_bytes = (size_t)1 << 30};
    memset(s, 0, sizeof *s);
    s->kernels = mb_kernels_cuda();
    s->type = type;
    s->bounds = type == MB_F32 ? bounds_f32 : type == MB_BF16 ? bounds_bf16 : bounds_f16;
    if (mb_cuda_device_count(&why) == 0) {
        printf("skipped: %s\n", why.text);
        return false;
    }
    if (s->kernels->open(&s->device, &options, &err) != MB_OK)
        fail_msg("%s", err.text);
    return true;
}

static void every_operation(mb_type type)
{
    suite s;
    int ran = 0;
    if (!open_device(&s, type))
        skip();
    for (int operation = 0; operation < MB_OPERATION_COUNT; operation++) {
        int before = s.failures;
        ran += suite_run_operation(&s, (mb_operation)operation);
        if (s.failures > before)
            printf("%s: %d failures\n", mb_operation_name((mb_operation)operation), s.failures - before);
    }
    suite_reuse(&s);
    s.kernels->close(s.device);
    assert_int_equal(s.failures, 0);
    assert_true(ran > 60 || getenv("MASKBENCH_TEST_OPERATIONS"));
}

static void test_f32(void **state)
{
    (void)state;
    every_operation(MB_F32);
}

static void test_bf16(void **state)
{
    (void)state;
    every_operation(MB_BF16);
}

static void test_f16(void **state)
{
    (void)state;
    every_operation(MB_F16);
}

/* Every byte that any operation wrote, hashed, twice. */
static void test_repeatable(void **state)
{
    char first[MB_HASH_CAP] = "", again[MB_HASH_CAP] = "";
    (void)state;
    for (int round = 0; round < 2; round++) {
        suite s;
        if (!open_device(&s, MB_BF16))
            skip();
        s.digest = mb_hash_new();
        for (int operation = 0; operation < MB_OPERATION_COUNT; operation++)
            suite_run_operation(&s, (mb_operation)operation);
        suite_reuse(&s);
        mb_hash_end(s.digest, round ? again : first);
        s.kernels->close(s.device);
    }
    assert_string_equal(first, again);
}

/* Copies of every alignment, and a graph with a branch beside it, leave what the same calls in order leave. */
static void test_copy_and_branch(void **state)
{
    enum { BYTES = 300001, CELLS = 5 };
    suite s;
    (void)state;
    if (!open_device(&s, MB_BF16))
        skip();
    const mb_kernels *k = s.kernels;
    unsigned char *host = suite_own(&s, BYTES + 64), *back = suite_own(&s, BYTES + 64),
                  *want = suite_own(&s, BYTES + 64);
    unsigned char *cell[CELLS];
    for (int i = 0; i < BYTES + 64; i++)
        host[i] = (unsigned char)(i * 7 + i / 251);
    for (int i = 0; i < CELLS; i++)
        cell[i] = k->alloc(s.device, BYTES + 64);
    for (int from = 0; from < 20; from += 4 - from % 3)
        for (int to = 0; to < 20; to += 3 + to % 2)
            for (int bytes = 0; bytes <= BYTES; bytes += bytes < 20 ? 1 : 99993) {
                memset(want, 0xee, BYTES + 64);
                memcpy(want + to, host + from, (size_t)bytes);
                k->upload(s.device, cell[0], host, BYTES + 64);
                k->fill(s.device, cell[1], 0xee, BYTES + 64);
                suite_ok(&s, k->copy(s.device, cell[1] + to, cell[0] + from, (size_t)bytes), "copy");
                k->download(s.device, back, cell[1], BYTES + 64);
                suite_expect(&s, memcmp(back, want, BYTES + 64) == 0, "a copy of %d bytes from +%d to +%d differs",
                             bytes, from, to);
            }
    /* 0 -> 1 beside 2 -> 3, then both are read: 1 -> 2, 3 -> 4. */
    for (int round = 0; round < 20; round++) {
        mb_graph *graph = NULL;
        for (int i = 0; i < CELLS; i++)
            k->fill(s.device, cell[i], i + 1 + round, BYTES);
        suite_ok(&s, k->capture_begin(s.device), "capture_begin");
        suite_ok(&s, k->fill(s.device, cell[0], 77 + round, BYTES), "fill");
        suite_ok(&s, k->branch_begin(s.device), "branch_begin");
        suite_ok(&s, k->copy(s.device, cell[1], cell[0], BYTES), "copy");
        suite_ok(&s, k->branch_end(s.device), "branch_end");
        suite_ok(&s, k->copy(s.device, cell[3], cell[2], BYTES), "copy");
        if (round % 2) /* else the end of the capture joins */
            suite_ok(&s, k->branch_join(s.device), "branch_join");
        if (round % 2)
            suite_ok(&s, k->copy(s.device, cell[2], cell[1], BYTES), "copy");
        suite_ok(&s, k->capture_end(s.device, &graph), "capture_end");
        suite_ok(&s, k->graph_launch(s.device, graph), "graph_launch");
        const int filled[CELLS] = {77 + round, 77 + round, round % 2 ? 77 + round : 3 + round, 3 + round,
                                   5 + round};
        for (int i = 0; i < CELLS; i++) {
            k->download(s.device, back, cell[i], BYTES);
            memset(want, filled[i], BYTES);
            suite_expect(&s, memcmp(back, want, BYTES) == 0, "round %d: buffer %d differs", round, i);
        }
        k->graph_free(s.device, graph);
    }
    for (int i = 0; i < s.owned_count; i++)
        free(s.owned[i]);
    k->close(s.device);
    assert_int_equal(s.failures, 0);
}

/* Copies and fills count as such in a profile, whatever they are made of. */
static void test_parts(void **state)
{
    enum { BYTES = 4099 }; /* a kernel for the whole vectors, one for the rest */
    suite s;
    (void)state;
    if (!open_device(&s, MB_BF16))
        skip();
    const mb_kernels *k = s.kernels;
    mb_kernel_record *records = NULL;
    size_t count = 0;
    unsigned char *from = k->alloc(s.device, BYTES), *to = k->alloc(s.device, BYTES);
    k->sync(s.device);
    int rc = k->profile_begin(s.device);
    if (rc == MB_E_INPUT) {
        printf("skipped: %s\n", k->error(s.device));
        k->close(s.device);
        skip();
    }
    suite_ok(&s, rc, "profile_begin");
    suite_ok(&s, k->fill(s.device, from, 3, BYTES), "fill");
    suite_ok(&s, k->copy(s.device, to, from, BYTES), "copy");
    suite_ok(&s, k->profile_end(s.device, &records, &count), "profile_end");
    suite_expect(&s, count == 3, "%zu records of a fill and a copy in two pieces", count);
    for (size_t i = 0; i < count; i++)
        suite_expect(&s, records[i].part == MB_PART_COPY, "%s counts as %s", records[i].name,
                     mb_part_name(records[i].part));
    free(records);
    k->close(s.device);
    assert_int_equal(s.failures, 0);
}

/* An attention and a top-k captured once and replayed with other lengths equal the eager calls. */
static void test_graph(void **state)
{
    enum { HEADS = 4, KV = 2, DIM = 64, ROWS = 8, CAPACITY = 512, K = 40 };
    suite s;
    mb_graph *graph = NULL;
    (void)state;
    if (!open_device(&s, MB_BF16))
        skip();
    const mb_kernels *k = s.kernels;
    s.random = mb_random_seed(7);
    float *q = suite_random(&s, ROWS * HEADS * DIM, 2), *cache = suite_random(&s, KV * CAPACITY * DIM, 2);
    void *dq = suite_put(&s, q, ROWS * HEADS * DIM, MB_BF16);
    void *dk = suite_put(&s, cache, KV * CAPACITY * DIM, MB_BF16),
         *out = k->alloc(s.device, ROWS * HEADS * DIM * 2);
    float *lse = k->alloc(s.device, ROWS * HEADS * 4), *mass = k->alloc(s.device, KV * CAPACITY * 4);
    int32_t *ids = k->alloc(s.device, KV * K * 4), *counts = k->alloc(s.device, KV * 4),
            *length = k->alloc(s.device, 4);
    mb_attention args = {
        .rows =
            {.batch = 1, .rows = ROWS, .prefix_len = length, .max_prefix = CAPACITY - ROWS, .block_keys = ROWS},
        .kv = {.k = dk, .v = dk, .batch = 1, .kv_heads = KV, .capacity = CAPACITY, .head_dim = DIM},
        .query_heads = HEADS,
        .q = dq,
        .out = out,
        .lse = lse,
        .mass = mass,
        .mass_stride = CAPACITY};
    void *scratch = k->alloc(s.device, k->top_k_scratch(1, KV, CAPACITY));
    unsigned char eager[ROWS * HEADS * DIM * 2], replayed[ROWS * HEADS * DIM * 2];
    int32_t eager_ids[KV * K], replayed_ids[KV * K];
    static const int32_t lengths[] = {500, 3, 257, 0, 128};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (int replay = 0; replay < 2; replay++) {
            k->upload(s.device, length, &lengths[i], sizeof lengths[i]);
            k->fill(s.device, out, 0xff, sizeof eager);
            k->fill(s.device, ids, 0xff, sizeof eager_ids);
            bool capture = replay && !graph;
            if (capture)
                suite_ok(&s, k->capture_begin(s.device), "capture_begin");
            if (!replay || capture) {
                suite_ok(&s, k->attend(s.device, &args), "attend");
                suite_ok(&s,
                         k->top_k(s.device, &(mb_top_k){{mass, CAPACITY, 1, KV, length, CAPACITY - ROWS, 1},
                                                        K,
                                                        NULL,
                                                        {1, K, ids, counts},
                                                        scratch}),
                         "top_k");
            }
            if (capture)
                suite_ok(&s, k->capture_end(s.device, &graph), "capture_end");
            if (replay)
                suite_ok(&s, k->graph_launch(s.device, graph), "graph_launch");
            k->download(s.device, replay ? replayed : eager, out, sizeof eager);
            k->download(s.device, replay ? replayed_ids : eager_ids, ids, sizeof eager_ids);
        }
        assert_memory_equal(eager, replayed, sizeof eager);
        assert_memory_equal(eager_ids, replayed_ids, sizeof eager_ids);
    }
    k->graph_free(s.device, graph);
    for (int i = 0; i < s.owned_count; i++)
        free(s.owned[i]);
    k->close(s.device);
    assert_int_equal(s.failures, 0);
}

/* A router and its experts captured once and replayed on other rows equal the eager calls: the routing is read on
 * the device. */
static void test_graph_experts(void **state)
{
    enum { ROWS = 32, WIDTH = 128, EXPERTS = 64, TOP = 8, SIZE = 48, INPUTS = 3 };
    suite s;
    mb_graph *graph = NULL;
    (void)state;
    if (!open_device(&s, MB_BF16))
        skip();
    const mb_kernels *k = s.kernels;
    s.random = mb_random_seed(11);
    float *hidden = suite_random(&s, INPUTS * ROWS * WIDTH, 1), *gate = suite_random(&s, EXPERTS * WIDTH, 1);
    float *gate_up = suite_random(&s, EXPERTS * 2 * SIZE * WIDTH, 0.2),
          *down = suite_random(&s, EXPERTS * SIZE * WIDTH, 0.2);
    char *inputs = suite_put(&s, hidden, INPUTS * ROWS * WIDTH, MB_BF16);
    void *rows = k->alloc(s.device, ROWS * WIDTH * 2), *out = k->alloc(s.device, ROWS * WIDTH * 2);
    mb_router router = {.n = ROWS,
                        .width = WIDTH,
                        .experts = EXPERTS,
                        .top_k = TOP,
                        .groups = 8,
                        .groups_kept = 4,
                        .score = MB_SCORE_SIGMOID,
                        .normalise = 1,
                        .scale = 2.5f,
                        .hidden = rows,
                        .weight = suite_put(&s, gate, EXPERTS * WIDTH, MB_BF16),
                        .logits = k->alloc(s.device, ROWS * EXPERTS * 4),
                        .ids = k->alloc(s.device, ROWS * TOP * 4),
                        .weights = k->alloc(s.device, ROWS * TOP * 4)};
    mb_experts experts = {.n = ROWS,
                          .width = WIDTH,
                          .experts = EXPERTS,
                          .top_k = TOP,
                          .size = SIZE,
                          .hidden = rows,
                          .ids = router.ids,
                          .weights = router.weights,
                          .gate_up = suite_put(&s, gate_up, EXPERTS * 2 * SIZE * WIDTH, MB_BF16),
                          .down = suite_put(&s, down, EXPERTS * SIZE * WIDTH, MB_BF16),
                          .out = out,
                          .scratch =
                              k->alloc(s.device, mb_experts_scratch(ROWS, WIDTH, EXPERTS, TOP, SIZE, MB_BF16))};
    unsigned char eager[ROWS * WIDTH * 2], replayed[ROWS * WIDTH * 2];
    for (size_t i = 0; i < INPUTS; i++) {
        for (int replay = 0; replay < 2; replay++) {
            k->copy(s.device, rows, inputs + i * sizeof eager, sizeof eager);
            k->fill(s.device, out, 0xff, sizeof eager);
            bool capture = replay && !graph;
            if (capture)
                suite_ok(&s, k->capture_begin(s.device), "capture_begin");
            if (!replay || capture) {
                suite_ok(&s, k->route(s.device, &router), "route");
                suite_ok(&s, k->experts(s.device, &experts), "experts");
            }
            if (capture)
                suite_ok(&s, k->capture_end(s.device, &graph), "capture_end");
            if (replay)
                suite_ok(&s, k->graph_launch(s.device, graph), "graph_launch");
            k->download(s.device, replay ? replayed : eager, out, sizeof eager);
        }
        assert_memory_equal(eager, replayed, sizeof eager);
    }
    k->graph_free(s.device, graph);
    for (int i = 0; i < s.owned_count; i++)
        free(s.owned[i]);
    k->close(s.device);
    assert_int_equal(s.failures, 0);
}

static void test_arena(void **state)
{
    suite s;
    (void)state;
    if (!open_device(&s, MB_F32))
        skip();
    assert_null(s.kernels->alloc(s.device, (size_t)2 << 30));
    assert_true(strlen(s.kernels->error(s.device)) > 10);
    size_t mark = s.kernels->mark(s.device);
    unsigned char *memory = s.kernels->alloc(s.device, 1000), host[1000];
    assert_non_null(memory);
    s.kernels->fill(s.device, memory, 0xee, 1000);
    s.kernels->release(s.device, mark);
    memory = s.kernels->alloc(s.device, 1000);
    s.kernels->download(s.device, host, memory, sizeof host);
    for (size_t i = 0; i < sizeof host; i++)
        assert_int_equal(host[i], 0);
    s.kernels->close(s.device);
}

int main(void)
{
    if (!mb_kernels_cuda()) {
        puts("skipped: this build has no CUDA");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_and_branch),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_graph),
        cmocka_unit_test(test_f32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_repeatable),
        cmocka_unit_test(test_graph_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
