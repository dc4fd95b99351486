/*
 * test_operations.c - every operation of a training against the CPU's, on random inputs: shapes of the tests' own
 * network and of real models, odd widths, an index with gaps. The other side is the device that
 * MASKBENCH_TEST_DEVICE names, or the CPU with three threads. Both sides run twice to the same bits.
 * MASKBENCH_TEST_REDUCED=1 opens the device with rounded products and allows their error.
 */
#include "kernels/training.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RESULTS 8
#define ARENA ((size_t)512 << 20)
#define EXACT 1e-5 /* relative error of an array, in the Euclidean norm */
#define REDUCED 2e-2

/* One backend at work on a case, and what the case left. */
typedef struct side {
    const mb_kernels *kernels;
    const mb_training_kernels *ops;
    mb_device *device;
    mb_random random;
    float *result[RESULTS];
    size_t n[RESULTS];
    int count;
} side;

static side reference, tested;
static double allowed = EXACT;

static void *room(side *s, size_t bytes)
{
    void *at = s->kernels->alloc(s->device, bytes ? bytes : 1);
    assert_non_null(at);
    return at;
}

static void *sent(side *s, const void *host, size_t bytes)
{
    void *at = room(s, bytes);
    assert_int_equal(s->kernels->upload(s->device, at, host, bytes), MB_OK);
    return at;
}

/* n random floats in +-scale around center: the same on both sides. */
static float *drawn(side *s, int64_t n, double scale, double center)
{
    float *host = malloc(((size_t)n + 1) * sizeof *host);
    for (int64_t i = 0; i < n; i++)
        host[i] = (float)(center + scale * (2.0 * mb_random_unit(&s->random) - 1.0));
    float *at = sent(s, host, (size_t)n * sizeof *host);
    free(host);
    return at;
}

static int32_t *drawn_ids(side *s, int64_t n, int32_t below)
{
    int32_t *host = malloc(((size_t)n + 1) * sizeof *host);
    for (int64_t i = 0; i < n; i++) /* half of them are the same one */
        host[i] =
            mb_random_unit(&s->random) < 0.5 ? below - 1 : (int32_t)mb_random_below(&s->random, (uint64_t)below);
    int32_t *at = sent(s, host, (size_t)n * sizeof *host);
    free(host);
    return at;
}

/* An array that the operation wrote. */
static void keep(side *s, const float *at, int64_t n)
{
    float *host = malloc(((size_t)n + 1) * sizeof *host);
    assert_true(s->count < RESULTS);
    assert_int_equal(s->kernels->download(s->device, host, at, (size_t)n * sizeof *host), MB_OK);
    s->result[s->count] = host;
    s->n[s->count++] = (size_t)n;
}

static void done(side *s, int rc)
{
    if (rc != MB_OK)
        fail_msg("%s: %s", s->kernels->name, s->kernels->error(s->device));
}

/* ---- one run a side, and what they say ---- */

typedef void run_case(side *s, const int32_t *shape);

static void clear(side *s)
{
    for (int i = 0; i < s->count; i++)
        free(s->result[i]);
    s->count = 0;
}

static void run_on(side *s, run_case *run, const int32_t *shape)
{
    clear(s);
    const size_t mark = s->kernels->mark(s->device);
    s->random = mb_random_seed(17);
    run(s, shape);
    s->kernels->release(s->device, mark);
}

static void compare(run_case *run, const int32_t *shape, const char *name)
{
    side first;
    run_on(&reference, run, shape);
    run_on(&tested, run, shape);
    first = tested;
    tested.count = 0;
    run_on(&tested, run, shape);
    for (int i = 0; i < tested.count; i++) {
        double error = 0, size = 0;
        if (memcmp(first.result[i], tested.result[i], tested.n[i] * sizeof(float)) != 0)
            fail_msg("%s, result %d: two runs differ", name, i);
        for (size_t k = 0; k < tested.n[i]; k++) {
            const double a = (double)reference.result[i][k], b = (double)tested.result[i][k];
            error += (a - b) * (a - b);
            size += a * a;
        }
        if (!(sqrt(error) <= allowed * sqrt(size) + 1e-30))
            fail_msg("%s %d %d %d %d, result %d: relative error %.3g", name, shape[0], shape[1], shape[2],
                     shape[3], i, sqrt(error / size));
    }
    assert_int_equal(reference.count, tested.count);
    assert_true(tested.count > 0);
    clear(&first);
}

#define COMPARE(run, ...) compare(run, (const int32_t[8]){__VA_ARGS__}, #run)

/* ---- products and rows ---- */

static void gemm(side *s, const int32_t *shape) /* m n k */
{
    const int64_t m = shape[0], n = shape[1], k = shape[2];
    float *a = drawn(s, m * k, 1, 0), *w = drawn(s, n * k, 1, 0), *bias = drawn(s, n, 1, 0),
          *add = drawn(s, m * n, 1, 0);
    float *out = room(s, (size_t)(m * n) * sizeof(float)), *plain = room(s, (size_t)(m * n) * sizeof(float));
    done(s, s->ops->train_gemm(s->device, &(mb_train_gemm){a, w, bias, add, m, n, k, out}));
    done(s, s->ops->train_gemm(s->device, &(mb_train_gemm){a, w, NULL, NULL, m, n, k, plain}));
    keep(s, out, m * n);
    keep(s, plain, m * n);
    float *da = room(s, (size_t)(m * k) * sizeof(float)), *dw = drawn(s, n * k, 1, 0), *db = drawn(s, n, 1, 0);
    done(s, s->ops->gemm_gradient(s->device, &(mb_gemm_gradient){add, a, w, m, n, k, da, dw, db}));
    keep(s, da, m * k);
    keep(s, dw, n * k);
    keep(s, db, n);
}

static void norm(side *s, const int32_t *shape) /* n width add */
{
    const int64_t n = shape[0], width = shape[1];
    float *x = drawn(s, n * width, 1, 0.2), *dy = drawn(s, n * width, 1, 0), *w = drawn(s, width, 0.3, 1);
    float *dx = drawn(s, n * width, 1, 0), *dw = drawn(s, width, 1, 0);
    done(s,
         s->ops->rmsnorm_gradient(s->device, &(mb_rmsnorm_gradient){x, dy, w, 1e-6f, n, width, shape[2], dx, dw}));
    keep(s, dx, n * width);
    keep(s, dw, width);
}

static void qkv(side *s, const int32_t *shape) /* n query_heads kv_heads head_dim rotary_dim norms */
{
    const int64_t n = shape[0], width = (int64_t)(shape[1] + 2 * shape[2]) * shape[3], all = n * width;
    float *q_norm = drawn(s, shape[3], 0.3, 1), *k_norm = drawn(s, shape[3], 0.3, 1);
    float *dq_norm = drawn(s, shape[3], 1, 0), *dk_norm = drawn(s, shape[3], 1, 0);
    mb_train_qkv args = {.n = n,
                         .query_heads = shape[1],
                         .kv_heads = shape[2],
                         .head_dim = shape[3],
                         .rotary_dim = shape[4],
                         .positions = drawn_ids(s, n, 50),
                         .cos_sin = drawn(s, (int64_t)50 * shape[4], 1, 0),
                         .q_norm = shape[5] ? q_norm : NULL,
                         .k_norm = shape[5] ? k_norm : NULL,
                         .norm_eps = 1e-6f,
                         .qkv = drawn(s, all, 1, 0),
                         .out = room(s, (size_t)all * sizeof(float)),
                         .dout = drawn(s, all, 1, 0),
                         .dqkv = room(s, (size_t)all * sizeof(float)),
                         .dq_norm = shape[5] ? dq_norm : NULL,
                         .dk_norm = shape[5] ? dk_norm : NULL};
    done(s, s->ops->train_qkv(s->device, &args));
    done(s, s->ops->train_qkv_gradient(s->device, &args));
    keep(s, args.out, all);
    keep(s, args.dqkv, all);
    keep(s, dq_norm, shape[3]);
    keep(s, dk_norm, shape[3]);
}

static void swiglu(side *s, const int32_t *shape) /* n width */
{
    const int64_t n = shape[0], width = shape[1];
    float *gate_up = drawn(s, n * 2 * width, 3, 0), *dy = drawn(s, n * width, 1, 0);
    float *to = room(s, (size_t)(n * 2 * width) * sizeof(float));
    done(s, s->ops->swiglu_gradient(s->device, &(mb_swiglu_gradient){gate_up, dy, n, width, to}));
    keep(s, to, n * 2 * width);
}

static void embed(side *s, const int32_t *shape) /* n vocab width */
{
    const int64_t n = shape[0], vocab = shape[1], width = shape[2];
    int32_t *ids = drawn_ids(s, n, shape[1]);
    float *dy = drawn(s, n * width, 1, 0.1), *table = drawn(s, vocab * width, 1, 0);
    done(s, s->ops->embed_gradient(s->device, &(mb_embed_gradient){ids, dy, n, vocab, width, table}));
    keep(s, table, vocab * width);
}

static void rows(side *s, const int32_t *shape) /* n width */
{
    const int64_t n = shape[0], width = shape[1];
    int32_t *which = malloc((size_t)n * sizeof *which);
    for (int64_t i = 0; i < n; i++)
        which[i] = (int32_t)((i * 7 + 3) % (7 * n) / 2 % (4 * n)); /* distinct: 3.5 apart */
    int32_t *at = sent(s, which, (size_t)n * sizeof *which);
    free(which);
    float *x = drawn(s, 4 * n * width, 1, 0), *out = room(s, (size_t)(n * width) * sizeof(float));
    float *y = drawn(s, n * width, 1, 0), *sum = room(s, (size_t)(n * width) * sizeof(float));
    done(s, s->ops->train_gather(s->device, &(mb_train_gather){x, at, n, width, out}));
    done(s, s->ops->train_add(s->device, &(mb_train_add){out, y, sum, n * width}));
    done(s, s->ops->train_scatter(s->device, &(mb_train_gather){x, at, n, width, y}));
    keep(s, out, n * width);
    keep(s, sum, n * width);
    keep(s, x, 4 * n * width);
}

static void products_and_rows(void **state)
{
    (void)state;
    COMPARE(gemm, 70, 40, 32);
    COMPARE(gemm, 513, 96, 256);
    COMPARE(gemm, 5, 3, 20);
    COMPARE(norm, 70, 32, 1);
    COMPARE(norm, 1000, 256, 0);
    COMPARE(norm, 3, 1111, 1);
    COMPARE(qkv, 70, 4, 2, 20, 20, 1);
    COMPARE(qkv, 300, 8, 2, 64, 64, 1);
    COMPARE(qkv, 65, 6, 3, 128, 64, 0);
    COMPARE(qkv, 33, 2, 1, 256, 256, 1);
    COMPARE(swiglu, 70, 44);
    COMPARE(swiglu, 9, 33);
    COMPARE(embed, 1000, 40, 32);
    COMPARE(embed, 3000, 2048, 70);
    COMPARE(embed, 64, 3, 300);
    COMPARE(rows, 70, 33);
}

/* ---- losses and the optimiser ---- */

static void loss(side *s, const int32_t *shape) /* n vocab taught in-place */
{
    const int64_t n = shape[0], vocab = shape[1];
    float *z = drawn(s, n * vocab, 4, 0), *t = drawn(s, n * vocab, 4, 0);
    float *other = room(s, (size_t)(n * vocab) * sizeof(float)), *ce = room(s, (size_t)n * sizeof(float));
    float *kl = room(s, (size_t)n * sizeof(float));
    int32_t *correct = room(s, (size_t)n * sizeof(int32_t));
    mb_train_loss args = {.logits = z,
                          .teacher = shape[2] ? t : NULL,
                          .targets = drawn_ids(s, n, shape[1]),
                          .weight = drawn(s, n, 1, 1),
                          .distil = shape[2] ? drawn(s, n, 1, 1) : NULL,
                          .n = n,
                          .vocab = vocab,
                          .dlogits = shape[3] ? z : other,
                          .ce = ce,
                          .kl = shape[2] ? kl : NULL,
                          .correct = correct};
    done(s, s->ops->train_loss(s->device, &args));
    keep(s, args.dlogits, n * vocab);
    keep(s, ce, n);
    keep(s, kl, n);
}

static void optimiser(side *s, const int32_t *shape) /* n */
{
    const int64_t n = shape[0];
    double sum = 1.0;
    float *w = drawn(s, n, 1, 0), *m = drawn(s, n, 0.1, 0), *v = drawn(s, n, 0.01, 0.01), *g = drawn(s, n, 1, 0);
    done(s, s->ops->square_sum(s->device, &(mb_square_sum){g, n, &sum}));
    done(s, s->ops->adamw(s->device,
                          &(mb_adamw){w, m, v, g, n, 1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.5f, 0.19, 0.0975}));
    keep(s, w, n);
    keep(s, m, n);
    keep(s, v, n);
    const float total = (float)sum;
    keep(s, sent(s, &total, sizeof total), 1);
}

static void losses_and_the_optimiser(void **state)
{
    (void)state;
    COMPARE(loss, 33, 40, 1, 1);
    COMPARE(loss, 100, 2048, 0, 1);
    COMPARE(loss, 7, 5001, 1, 0);
    COMPARE(optimiser, 100003);
    COMPARE(optimiser, 5);
}

/* ---- attention ---- */

static int by_number(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

/* Up to `capacity` distinct clean keys before each block, in no order of importance. */
static mb_train_index drawn_index(side *s, const mb_train_layout *l, int32_t kv_heads, int32_t capacity)
{
    const int32_t blocks = l->tail / l->block, heads = l->documents * blocks * kv_heads;
    int32_t *ids = calloc((size_t)(heads * capacity), sizeof *ids),
            *counts = calloc((size_t)heads, sizeof *counts);
    for (int32_t h = 0; h < heads; h++) {
        const int32_t before = l->clean - l->tail + h / kv_heads % blocks * l->block;
        int32_t *mine = ids + h * capacity, n = 0;
        for (int32_t i = 0; i < before && n < capacity; i++)
            if (mb_random_unit(&s->random) < 0.3)
                mine[n++] = before - 1 - i;
        if (h % 2)
            qsort(mine, (size_t)n, sizeof *mine, by_number);
        counts[h] = n;
    }
    const mb_train_index index = {capacity, sent(s, ids, (size_t)(heads * capacity) * sizeof *ids),
                                  sent(s, counts, (size_t)heads * sizeof *counts)};
    free(ids);
    free(counts);
    return index;
}

static void attention(side *s,
                      const int32_t *shape) /* documents clean tail block query_heads kv_heads dim capacity */
{
    const mb_train_layout layout = {shape[0], shape[1], shape[2], shape[3]};
    const int64_t n = mb_train_rows(&layout), width = (int64_t)(shape[4] + 2 * shape[5]) * shape[6];
    const int64_t wide = (int64_t)shape[4] * shape[6];
    const int64_t masses = (int64_t)layout.documents * (layout.tail / layout.block) * shape[5] * layout.clean;
    float *qkv = drawn(s, n * width, 2, 0), *out = room(s, (size_t)(n * wide) * sizeof(float));
    float *lse = room(s, (size_t)(n * shape[4]) * sizeof(float)), *dqkv = drawn(s, n * width, 1, 0);
    float *mass = drawn(s, masses, 1, 0), *dout = drawn(s, n * wide, 1, 0);
    mb_train_index index;
    mb_train_attention args = {.layout = layout,
                               .query_heads = shape[4],
                               .kv_heads = shape[5],
                               .head_dim = shape[6],
                               .qkv = qkv,
                               .out = out,
                               .lse = lse,
                               .mass = shape[7] || masses == 0 ? NULL : mass};
    if (shape[7]) {
        index = drawn_index(s, &layout, shape[5], shape[7]);
        args.index = &index;
    }
    done(s, s->ops->train_attend(s->device, &args));
    keep(s, out, n * wide);
    keep(s, lse, n * shape[4]);
    if (args.mass)
        keep(s, mass, masses);
    args.mass = NULL;
    args.dout = dout;
    args.dqkv = dqkv;
    done(s, s->ops->train_attend_gradient(s->device, &args));
    keep(s, dqkv, n * width);
}

static void attention_and_its_gradient(void **state)
{
    (void)state;
    for (int32_t capacity = 0; capacity <= 40; capacity += 40) {
        COMPARE(attention, 2, 24, 12, 4, 4, 2, 20, capacity);
        COMPARE(attention, 3, 128, 128, 32, 8, 2, 64, capacity);
        COMPARE(attention, 2, 192, 64, 16, 4, 4, 64, capacity);
        COMPARE(attention, 1, 416, 96, 32, 7, 1, 128, capacity);
        COMPARE(attention, 1, 64, 32, 32, 2, 1, 256, capacity);
    }
    COMPARE(attention, 2, 150, 0, 1, 4, 2, 64, 0);
    COMPARE(attention, 1, 33, 0, 1, 2, 2, 20, 0);
}

static int open_sides(void **state)
{
    mb_error note, err = {0};
    const char *spec = getenv("MASKBENCH_TEST_DEVICE"), *reduced = getenv("MASKBENCH_TEST_REDUCED");
    mb_device_options options = {.type = MB_F32, .threads = 1, .arena_bytes = ARENA};
    (void)state;
    int rc = mb_device_open("cpu", &options, &reference.kernels, &reference.device, &note, &err);
    options.threads = 3;
    options.reduced = reduced && *reduced == '1';
    if (rc == MB_OK)
        rc = mb_device_open(spec && *spec ? spec : "cpu", &options, &tested.kernels, &tested.device, &note, &err);
    if (rc == MB_OK)
        rc = mb_training_of(reference.kernels, &reference.ops, &err);
    if (rc == MB_OK)
        rc = mb_training_of(tested.kernels, &tested.ops, &err);
    if (options.reduced)
        allowed = REDUCED;
    if (rc != MB_OK)
        fprintf(stderr, "%s\n", err.text);
    return rc;
}

static int close_sides(void **state)
{
    (void)state;
    clear(&reference);
    clear(&tested);
    reference.kernels->close(reference.device);
    tested.kernels->close(tested.device);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_and_rows),
        cmocka_unit_test(losses_and_the_optimiser),
        cmocka_unit_test(attention_and_its_gradient),
    };
    return cmocka_run_group_tests(tests, open_sides, close_sides);
}
