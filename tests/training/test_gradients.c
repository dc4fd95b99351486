/*
 * test_gradients.c - every parameter's gradient against central differences of the loss, for both layouts of a
 * model and both recipes; the same bits for any number of threads and with activations computed twice; what AdamW
 * does; a backend that cannot train. On the CPU, or on the device that MASKBENCH_TEST_DEVICE names.
 */
#include "tests/training/tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define PROBES 2     /* parameters of a tensor: its largest gradients */
#define STEP 4e-3f   /* of the difference */
#define ALLOWED 0.02 /* of the tensor's largest gradient: fp32 losses and the third derivative */

typedef struct checking {
    tiny *t;
    const float *gradient;
    bool taught;
    int tensors;
} checking;

static double loss_at(tiny *t, bool taught, size_t at, float value)
{
    double loss = NAN;
    assert_int_equal(tiny_poke(t, t->network.weights.base + at, value), MB_OK);
    assert_int_equal(tiny_loss(t, taught, false, &loss), MB_OK);
    return loss;
}

static int check_tensor(void *user, const mb_parameter *parameter)
{
    checking *c = user;
    size_t best[PROBES] = {0};
    int found = 0;
    float most = 0.0f;
    for (int probe = 0; probe < PROBES; probe++) {
        size_t at = parameter->first;
        for (size_t i = parameter->first; i < parameter->first + parameter->n; i++) {
            bool taken = false;
            for (int k = 0; k < found; k++)
                taken = taken || best[k] == i;
            if (!taken && fabsf(c->gradient[i]) > fabsf(c->gradient[at]))
                at = i;
        }
        best[found++] = at;
        if (probe == 0)
            most = fabsf(c->gradient[at]);
    }
    assert_true(most > 1e-6f);
    for (int probe = 0; probe < PROBES; probe++) {
        const size_t at = best[probe];
        const float value = tiny_peek(c->t, c->t->network.weights.base + at);
        const double up = loss_at(c->t, c->taught, at, value + STEP),
                     down = loss_at(c->t, c->taught, at, value - STEP);
        assert_int_equal(tiny_poke(c->t, c->t->network.weights.base + at, value), MB_OK);
        const double difference = (up - down) / ((double)(value + STEP) - (double)(value - STEP));
        if (fabs(difference - (double)c->gradient[at]) > ALLOWED * (double)most + 2e-4)
            fail_msg("%s[%zu]: gradient %g, difference %g", parameter->name, at - parameter->first,
                     (double)c->gradient[at], difference);
    }
    c->tensors++;
    return MB_OK;
}

/* The gradients of all parameters, or of the adapter. */
static float *gradients_of(const tiny *t)
{
    float *out = tiny_copy(t, t->network.gradients.base, t->network.trained_floats * sizeof *out);
    assert_non_null(out);
    return out;
}

static void check_all(bool qwen2, bool taught, bool complementary, bool shift)
{
    tiny t;
    double loss;
    assert_int_equal(tiny_open(&t, qwen2, false, 1, complementary, shift), MB_OK);
    if (taught)
        assert_int_equal(tiny_select(&t), MB_OK);
    assert_int_equal(tiny_loss(&t, taught, true, &loss), MB_OK);
    float *gradient = gradients_of(&t);
    checking c = {.t = &t, .gradient = gradient, .taught = taught};
    assert_int_equal(mb_parameters_each(&t.network.config, check_tensor, &c), MB_OK);
    assert_int_equal(c.tensors, qwen2 ? 3 + 3 * 12 : 2 + 3 * 11);
    free(gradient);
    tiny_close(&t);
}

static void gradients_of_cross_entropy(void **state)
{
    (void)state;
    check_all(false, false, false, false);
    check_all(true, false, true, true);
}

/* The loss of a token behind a row does not hear of it from the row's block; its gradient is the losses'. */
static void the_autoregressive_loss_is_causal(void **state)
{
    tiny t;
    double loss, other;
    const int last = TINY_CLEAN - 1;
    (void)state;
    assert_int_equal(tiny_open(&t, true, false, 2, false, false), MB_OK);
    assert_int_equal(tiny_causal(&t), MB_OK);
    assert_int_equal(t.batch.targets, TINY_DOCUMENTS * last);
    assert_int_equal(t.batch.layout.block, 1);
    for (int i = 0; i < t.batch.targets; i++)
        assert_int_equal(t.batch.target[i], t.batch.ids[t.batch.row[i] + 1]);
    assert_int_equal(tiny_loss(&t, false, true, &loss), MB_OK);
    for (int document = 0; document < TINY_DOCUMENTS; document++) /* no row is asked that sees the last token */
        t.batch.ids[document * TINY_CLEAN + last] ^= 1;
    assert_int_equal(mb_network_feed(&t.network, &t.batch, &t.err), MB_OK);
    assert_int_equal(tiny_loss(&t, false, false, &other), MB_OK);
    assert_true(loss == other);
    t.batch.ids[last - 1] ^= 1;
    assert_int_equal(mb_network_feed(&t.network, &t.batch, &t.err), MB_OK);
    assert_int_equal(tiny_loss(&t, false, false, &other), MB_OK);
    assert_true(loss != other);
    t.batch.ids[last - 1] ^= 1;
    assert_int_equal(mb_network_feed(&t.network, &t.batch, &t.err), MB_OK);
    float *gradient = gradients_of(&t);
    checking c = {.t = &t, .gradient = gradient};
    assert_int_equal(mb_parameters_each(&t.network.config, check_tensor, &c), MB_OK);
    free(gradient);
    tiny_close(&t);
}

static void gradients_of_the_sparse_student(void **state)
{
    (void)state;
    check_all(false, true, false, false);
    check_all(true, true, false, true);
}

/* Loss and gradients of one setting, as bytes. */
static float *run(int threads, bool checkpointing, bool taught, size_t *floats)
{
    tiny t;
    double loss;
    assert_int_equal(tiny_open(&t, false, checkpointing, threads, false, false), MB_OK);
    if (taught)
        assert_int_equal(tiny_select(&t), MB_OK);
    assert_int_equal(tiny_loss(&t, taught, true, &loss), MB_OK);
    *floats = t.network.floats;
    float *out = realloc(gradients_of(&t), (*floats + 1) * sizeof *out);
    assert_non_null(out);
    out[*floats] = (float)loss;
    tiny_close(&t);
    return out;
}

static void equal_bits_for_any_threads_and_checkpointing(void **state)
{
    (void)state;
    for (int taught = 0; taught < 2; taught++) {
        size_t floats;
        float *one = run(1, false, taught, &floats), *three = run(3, false, taught, &floats);
        float *again = run(2, true, taught, &floats);
        assert_memory_equal(one, three, (floats + 1) * sizeof *one);
        assert_memory_equal(one, again, (floats + 1) * sizeof *one);
        free(one);
        free(three);
        free(again);
    }
}

/* Two micro-batches add up to the gradient of both: the sum of one batch's, twice. */
static void gradients_accumulate(void **state)
{
    tiny t;
    double loss;
    (void)state;
    assert_int_equal(tiny_open(&t, false, false, 1, false, false), MB_OK);
    assert_int_equal(tiny_loss(&t, false, true, &loss), MB_OK);
    float *once = gradients_of(&t);
    assert_int_equal(tiny_loss(&t, false, true, &loss), MB_OK);
    float *twice = gradients_of(&t);
    for (size_t i = 0; i < t.network.floats; i++)
        assert_true(fabsf(twice[i] - 2.0f * once[i]) <= 1e-5f + 1e-4f * fabsf(once[i]));
    free(twice);
    free(once);
    tiny_close(&t);
}

/* An index that holds every clean key gives the exact loss, whatever the order in which its keys are added. */
static void a_full_index_is_exact(void **state)
{
    tiny t;
    double exact, sparse;
    (void)state;
    assert_int_equal(tiny_open(&t, false, false, 2, false, false), MB_OK);
    assert_int_equal(tiny_loss(&t, false, false, &exact), MB_OK);
    assert_int_equal(tiny_select(&t), MB_OK);
    assert_int_equal(tiny_loss(&t, true, false, &sparse), MB_OK);
    assert_true(fabs(exact - sparse) > 1e-3); /* three keys are not all */
    mb_losses losses = {0};
    const mb_loss_request request = {.total = t.batch.weight_sum, .mode = MB_ATTEND_SPARSE, .choice = &t.choice};
    for (int32_t l = 0; l < t.network.config.layers; l++) {
        const mb_page_set *set = &t.network.index[l];
        int32_t *first = tiny_copy(&t, set->counts, sizeof *first);
        assert_int_equal(set->capacity, TINY_K);
        assert_non_null(first);
        assert_true(*first == TINY_K || l < t.choice.dense_layers);
        free(first);
    }
    /* The same network, all keys before the block in its index: room for them is what TINY_K lacks, so the index
     * is replaced. */
    const int32_t heads = (int32_t)t.network.size.entries * t.network.config.kv_heads,
                  kv = t.network.config.kv_heads;
    const size_t ids_bytes = (size_t)heads * TINY_CLEAN * sizeof(int32_t),
                 counts_bytes = (size_t)heads * sizeof(int32_t);
    int32_t *ids = malloc(ids_bytes), *counts = malloc(counts_bytes);
    int32_t *on_ids = t.kernels->alloc(t.device, ids_bytes), *on_counts = t.kernels->alloc(t.device, counts_bytes);
    assert_true(ids && counts && on_ids && on_counts);
    for (int32_t h = 0; h < heads; h++) {
        counts[h] = TINY_CLEAN - TINY_TAIL + h / kv % (TINY_TAIL / TINY_BLOCK) * TINY_BLOCK;
        for (int32_t i = 0; i < TINY_CLEAN; i++)
            ids[h * TINY_CLEAN + i] = i;
    }
    assert_int_equal(t.kernels->upload(t.device, on_ids, ids, ids_bytes), MB_OK);
    assert_int_equal(t.kernels->upload(t.device, on_counts, counts, counts_bytes), MB_OK);
    t.network.size.capacity = TINY_CLEAN;
    for (int32_t l = 0; l < t.network.config.layers; l++)
        t.network.index[l] = (mb_page_set){1, TINY_CLEAN, on_ids, on_counts};
    assert_int_equal(
        mb_network_forward(&t.network, &t.batch, &t.network.weights, MB_ATTEND_SPARSE, &t.choice, &t.err), MB_OK);
    assert_int_equal(mb_network_loss(&t.network, &t.batch, &request, &losses, &t.err), MB_OK);
    assert_true(fabs(losses.ce / losses.weight - exact) < 1e-6);
    free(ids);
    free(counts);
    tiny_close(&t);
}

/* One step from zero moments moves every weight with a gradient by lr; decay takes lr*decay of a matrix's weight.
 */
static void a_first_step_of_the_optimiser(void **state)
{
    tiny t;
    double loss, norm, wanted = 0;
    (void)state;
    assert_int_equal(tiny_open(&t, false, false, 2, false, false), MB_OK);
    assert_int_equal(tiny_loss(&t, false, true, &loss), MB_OK);
    const size_t at = (size_t)((float *)t.network.weights.layers[1].down - t.network.weights.base) + 5;
    float *gradients = gradients_of(&t);
    const float before = tiny_peek(&t, t.network.weights.base + at), gradient = gradients[at];
    for (size_t i = 0; i < t.network.floats; i++)
        wanted += (double)gradients[i] * (double)gradients[i];
    free(gradients);
    const mb_update update = {
        .step = 1, .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-12, .decay = 0.1, .clip = 1e-3};
    assert_int_equal(mb_network_update(&t.network, &update, &norm, &t.err), MB_OK);
    assert_true(fabs(norm - sqrt(wanted)) < 1e-6 * norm && norm > 1e-3);
    const float after = before * (1.0f - 1e-3f) - (gradient > 0 ? 1e-2f : -1e-2f);
    assert_true(fabsf(tiny_peek(&t, t.network.weights.base + at) - after) < 1e-5f);
    assert_true(tiny_peek(&t, t.network.gradients.base + at) == 0.0f);
    tiny_close(&t);
}

static double adapter_loss(tiny *t, bool taught, size_t at, float value)
{
    double loss = NAN;
    assert_int_equal(tiny_poke(t, t->network.trained + at, value), MB_OK);
    assert_int_equal(tiny_loss(t, taught, false, &loss), MB_OK);
    return loss;
}

/* An adapter's gradients are the losses', for both recipes; the weights stay; a step moves A by the rate, which is
 * s times that of what is held. */
static void an_adapter_alone_is_trained(void **state)
{
    (void)state;
    tiny_targets = "q_proj v_proj, up_proj down_proj";
    for (int taught = 0; taught < 2; taught++) {
        tiny t;
        double loss, norm, squares = 0;
        assert_int_equal(tiny_open(&t, taught, taught, 2, false, false), MB_OK);
        const mb_adapter *adapter = &t.network.adapter;
        const size_t floats = t.network.trained_floats, all = t.network.floats * sizeof(float);
        assert_int_equal(adapter->count, 3 * 4);
        assert_true(floats < t.network.floats / 2);
        if (taught)
            assert_int_equal(tiny_select(&t), MB_OK);
        assert_int_equal(tiny_loss(&t, taught, true, &loss), MB_OK);
        float *gradient = gradients_of(&t), *weights = tiny_copy(&t, t.network.weights.base, all);
        assert_non_null(weights);
        for (size_t i = 0; i < 2 * adapter->count; i++) {
            const mb_adapter_part *part = &adapter->parts[i / 2];
            const size_t first = i % 2 ? part->b : part->a;
            const int64_t n = 3 * (i % 2 ? part->rows : part->cols);
            size_t at = first;
            for (size_t k = first; k < first + (size_t)n; k++) {
                at = fabsf(gradient[k]) > fabsf(gradient[at]) ? k : at;
                squares += (i % 2 ? 1.0 : 16.0 / 9.0) * (double)gradient[k] * (double)gradient[k];
            }
            const float value = tiny_peek(&t, t.network.trained + at);
            const double up = adapter_loss(&t, taught, at, value + STEP),
                         down = adapter_loss(&t, taught, at, value - STEP);
            assert_int_equal(tiny_poke(&t, t.network.trained + at, value), MB_OK);
            const double difference = (up - down) / ((double)(value + STEP) - (double)(value - STEP));
            assert_true(fabsf(gradient[at]) > 1e-5f);
            if (fabs(difference - (double)gradient[at]) > ALLOWED * fabs((double)gradient[at]) + 2e-4)
                fail_msg("%s %s: gradient %g, difference %g", part->name, i % 2 ? "B" : "A", (double)gradient[at],
                         difference);
        }
        const size_t a = adapter->parts[5].a + 1, b = adapter->parts[5].b + 1;
        const float before_a = tiny_peek(&t, t.network.trained + a),
                    before_b = tiny_peek(&t, t.network.trained + b);
        const mb_update update = {
            .step = 1, .lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-12, .decay = 0.1, .clip = 1e-3};
        assert_int_equal(mb_network_update(&t.network, &update, &norm, &t.err), MB_OK);
        assert_true(fabs(norm - sqrt(squares)) < 1e-5 * norm);
        const float s = 4.0f / 3.0f, decayed = 1.0f - 1e-3f;
        assert_true(fabsf(tiny_peek(&t, t.network.trained + a) -
                          (before_a * decayed - (gradient[a] > 0 ? s * 1e-2f : -s * 1e-2f))) < 1e-5f);
        assert_true(fabsf(tiny_peek(&t, t.network.trained + b) -
                          (before_b * decayed - (gradient[b] > 0 ? 1e-2f : -1e-2f))) < 1e-5f);
        float *after = tiny_copy(&t, t.network.weights.base, all);
        assert_non_null(after);
        assert_memory_equal(weights, after, all);
        free(after);
        free(gradient);
        free(weights);
        tiny_close(&t);
    }
    tiny_targets = "";
}

/* With top_p an index holds the fewest keys that have the share of the mass, k at least and k_max at most;
 * gradients of a student that reads so many are the losses'. */
static void an_index_of_a_share_of_the_mass(void **state)
{
    tiny t;
    double loss;
    int32_t sizes[TINY_K + 1] = {0};
    (void)state;
    assert_int_equal(tiny_open(&t, true, false, 2, false, false), MB_OK);
    t.choice = (mb_choice){.k = 1, .k_max = TINY_K, .p = 0.2, .dense_layers = 1};
    assert_int_equal(tiny_select(&t), MB_OK);
    mb_network *n = &t.network;
    assert_int_equal(mb_network_forward(n, &t.batch, &n->weights, MB_ATTEND_SELECT, &t.choice, &t.err), MB_OK);
    const mb_page_set *set = &n->index[n->config.layers - 1]; /* the layer whose masses are still there */
    const int32_t heads = (int32_t)n->size.entries * n->config.kv_heads;
    float *masses = tiny_copy(&t, n->mass, (size_t)heads * TINY_CLEAN * sizeof *masses);
    int32_t *ids = tiny_copy(&t, set->ids, (size_t)(heads * set->capacity) * sizeof *ids);
    int32_t *counts = tiny_copy(&t, set->counts, (size_t)heads * sizeof *counts);
    assert_true(masses && ids && counts);
    for (int32_t h = 0; h < heads; h++) {
        const float *mass = masses + (size_t)h * TINY_CLEAN;
        double all = 0, chosen = 0, least = 1;
        for (int i = 0; i < TINY_CLEAN; i++)
            all += (double)mass[i];
        for (int32_t i = 0; i < counts[h]; i++) {
            const double one = (double)mass[ids[h * set->capacity + i]];
            chosen += one;
            least = one < least ? one : least;
        }
        assert_in_range(counts[h], 1, TINY_K);
        sizes[counts[h]]++;
        if (counts[h] < TINY_K)
            assert_true(chosen >= 0.2 * all - 1e-6);
        if (counts[h] > 1)
            assert_true(chosen - least < 0.2 * all + 1e-6);
    }
    free(masses);
    free(ids);
    free(counts);
    assert_true(sizes[1] < heads && sizes[TINY_K] < heads); /* the share decides, not a bound */
    assert_int_equal(mb_network_teach(n, &t.batch, &n->weights, &t.err), MB_OK);
    assert_int_equal(tiny_loss(&t, true, true, &loss), MB_OK);
    float *gradient = gradients_of(&t);
    checking c = {.t = &t, .gradient = gradient, .taught = true};
    assert_int_equal(mb_parameters_each(&n->config, check_tensor, &c), MB_OK);
    free(gradient);
    tiny_close(&t);
}

static void another_backend_is_refused(void **state)
{
    const mb_kernels other = {.name = "elsewhere"};
    const mb_training_kernels *training;
    mb_error err = {0};
    (void)state;
    assert_int_equal(mb_training_of(&other, &training, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "no operations of a training"));
    assert_int_equal(mb_training_of(mb_kernels_cpu(), &training, &err), MB_OK);
    assert_non_null(training->adamw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_cross_entropy),
        cmocka_unit_test(the_autoregressive_loss_is_causal),
        cmocka_unit_test(gradients_of_the_sparse_student),
        cmocka_unit_test(equal_bits_for_any_threads_and_checkpointing),
        cmocka_unit_test(gradients_accumulate),
        cmocka_unit_test(a_full_index_is_exact),
        cmocka_unit_test(a_first_step_of_the_optimiser),
        cmocka_unit_test(an_index_of_a_share_of_the_mass),
        cmocka_unit_test(an_adapter_alone_is_trained),
        cmocka_unit_test(another_backend_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
