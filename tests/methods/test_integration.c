/*
 * test_integration.c - the methods in the real attender, on the trained tiny model: what the stage of the property
 * tests cannot show. A needle in a thousand tokens of filler; one block of eight steps; shadow recall of all
 * methods at one budget, and decoding with a budget that covers the context.
 */
#include "methods/registry/registry.h"
#include "model/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BUDGET "64"
#define STEPS 8

static const mb_kernels *kernels;
static mb_device *device;
static mb_model *model;
static mb_session *session;

static void need(int rc, const mb_error *err)
{
    if (rc != MB_OK)
        fail_msg("code %d: %s", rc, err);
}

/* Filler sentences around one needle; the question asks for it. */
static char *make_prompt(void)
{
    static const char *const filler[] = {"The grass is green and the sky is blue. ",
                                         "Here we go. There and back. ", "A boat lay in the harbour all winter. ",
                                         "Nobody asked about the bridge. "};
    mb_text text = {0};
    mb_random random = mb_random_seed(11);
    mb_text_puts(&text, "Some special magic numbers are hidden within the following text. Make sure to memorize "
                        "it. I will quiz you about the numbers afterwards.\n");
    for (int i = 0; i < 100; i++) {
        if (i == 35)
            mb_text_puts(&text, "One of the special magic numbers for harbour is: 7394126. ");
        mb_text_puts(&text, filler[mb_random_below(&random, 4)]);
    }
    mb_text_puts(&text, "\nWhat is the special magic number for harbour mentioned in the provided text?");
    return mb_text_take(&text);
}

static int open_all(void **state)
{
    mb_error err = {0};
    mb_device_options options = {.type = MB_BF16, .threads = 2, .arena_bytes = (size_t)1 << 30};
    mb_model_request request = {.path = "models/tiny"};
    mb_session_request session_request = {.batch = 1, .capacity = 2048};
    int32_t *ids = NULL;
    size_t n = 0;
    bool truncated;
    double us;
    (void)state;
    char *text = make_prompt();
    mb_prompt_request prompt = {.text = text, .chat = true, .hard_limit = 2000};
    kernels = mb_kernels_cpu();
    int rc = kernels->open(&device, &options, &err);
    if (rc == MB_OK)
        rc = mb_model_open(&model, &request, kernels, device, MB_BF16, &err);
    if (rc == MB_OK)
        rc = mb_session_open(&session, model, &session_request, &err);
    if (rc == MB_OK)
        rc = mb_prompt_build(model, &prompt, &ids, &n, &truncated, &err);
    if (rc == MB_OK)
        rc = mb_session_prefill(session, 0, ids, n, &us, &err);
    free(text);
    free(ids);
    if (rc != MB_OK)
        print_error("%s\n", err.text);
    return rc;
}

static int close_all(void **state)
{
    (void)state;
    mb_session_close(session);
    mb_model_close(model);
    kernels->close(device);
    return 0;
}

static mb_attender *open_method(const mb_method *method, const char *k, void **options)
{
    mb_attender *attender = NULL;
    mb_error err = {0};
    bool unsupported;
    *options = mb_method_options_new(method);
    if (k && mb_method_options_budget(method, *options) >= 0)
        need(mb_method_options_set(method, *options, "k", k, "k", &err), &err);
    need(mb_attender_open(&attender, session, method, *options, STEPS, 1, &unsupported, &err), &err);
    return attender;
}

static mb_sampler fixed_steps(void)
{
    mb_sampler sampler;
    mb_sampler_default(mb_model_config_of(model), &sampler);
    sampler.schedule = MB_SCHEDULE_FIXED;
    sampler.steps = STEPS;
    return sampler;
}

static mb_decode_request request_of(const mb_sampler *sampler)
{
    return (mb_decode_request){.sampler = sampler, .max_new_tokens = 32, .extra_stop_id = -1};
}

/* Mean index recall over layers, steps from 2 on. */
static double mean_recall(const mb_recall *recall)
{
    double sum = 0;
    int n = 0;
    for (size_t i = 0; i < recall->count; i++)
        if (recall->cells[i].step >= 2 && recall->cells[i].layer >= 2) {
            sum += recall->cells[i].index_recall;
            n++;
        }
    return n ? sum / n : NAN;
}

static size_t index_of(const char *name)
{
    for (size_t i = 0; i < mb_registry_count(); i++)
        if (strcmp(mb_registry_at(i)->name, name) == 0)
            return i;
    fail_msg("no method %s", name);
    return 0;
}

#define MOST 64

static void test_shadow_recall(void **state)
{
    mb_attender *attenders[MOST];
    void *options[MOST];
    mb_recall recalls[MOST];
    mb_decode_result result;
    mb_sampler sampler = fixed_steps();
    mb_decode_request request = request_of(&sampler);
    mb_error err = {0};
    size_t n = mb_registry_count();
    double mean[MOST] = {0};
    (void)state;
    assert_true(n <= MOST);
    void *exact_options;
    mb_attender *exact = open_method(mb_registry_find("exact"), NULL, &exact_options);
    for (size_t i = 0; i < n; i++)
        attenders[i] = open_method(mb_registry_at(i), BUDGET, &options[i]);
    need(mb_decode_shadow(session, exact, attenders, n, &request, &result, recalls, &err), &err);
    size_t oracle = index_of("oracle");
    assert_true(recalls[oracle].count > 0);
    for (size_t i = 0; i < n; i++) {
        const mb_method *method = mb_registry_at(i);
        if (recalls[i].failed)
            fail_msg("%s", recalls[i].error);
        if (method->caps & (MB_CAP_LOSSLESS | MB_CAP_OPAQUE))
            continue;
        /* A method without a budget may find nothing to leave out of this prompt. */
        bool budget = mb_method_options_budget(method, options[i]) >= 0;
        if (!budget && recalls[i].sparse_calls == 0)
            continue;
        assert_true(recalls[i].sparse_calls > 0);
        mean[i] = mean_recall(&recalls[i]);
        print_message("%-16s index recall %.3f\n", method->name, mean[i]);
        for (size_t j = 0; j < recalls[i].count; j++) {
            const mb_recall_cell *cell = &recalls[i].cells[j];
            assert_true(cell->index_recall >= 0 && cell->index_recall <= 1);
            assert_true(cell->mass_recall <= 1 + 1e-9);
            if (i == oracle && !(cell->index_recall == 1 && cell->mass_recall > 1 - 1e-9))
                fail_msg("the oracle misses at layer %d, step %d", cell->layer, cell->step);
        }
    }
    static const char *const weaker[] = {"quest", "window", "random"};
    for (size_t i = 0; i < sizeof weaker / sizeof weaker[0]; i++)
        assert_true(mean[index_of("mage")] > mean[index_of(weaker[i])]);
    mb_decode_result_free(&result);
    for (size_t i = n; i-- > 0;) {
        mb_attender_close(attenders[i]);
        free(options[i]);
        mb_recall_free(&recalls[i]);
    }
    mb_attender_close(exact);
    free(exact_options);
}

/* Decodes one block; the tokens are the caller's. */
static size_t decode(const mb_method *method, int32_t tokens[64])
{
    mb_sampler sampler = fixed_steps();
    mb_decode_request request = request_of(&sampler);
    mb_decode_result result;
    mb_error err = {0};
    void *options;
    mb_attender *attender = open_method(method, "4096", &options);
    need(mb_decode(session, attender, &request, &result, &err), &err);
    size_t n = result.count;
    assert_true(n > 0 && n <= 64);
    memcpy(tokens, result.ids, n * sizeof *tokens);
    mb_decode_result_free(&result);
    mb_attender_close(attender);
    free(options);
    return n;
}

/* A budget beyond the context: the exact run's tokens, unless a method keeps states of old queries. */
static void test_full_budget_tokens(void **state)
{
    int32_t expected[64], tokens[64];
    size_t n = decode(mb_registry_find("exact"), expected);
    (void)state;
    for (size_t i = 0; i < mb_registry_count(); i++) {
        const mb_method *method = mb_registry_at(i);
        void *options = mb_method_options_new(method);
        bool budget = mb_method_options_budget(method, options) >= 0;
        free(options);
        size_t count = decode(method, tokens); /* every method must at least run */
        if (!budget || (method->caps & MB_CAP_REUSE))
            continue;
        if (count != n || memcmp(tokens, expected, n * sizeof *tokens) != 0)
            fail_msg("%s with a full budget gives other tokens than exact", method->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shadow_recall),
        cmocka_unit_test(test_full_budget_tokens),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
