/*
 * test_parallel.c - a model over several ranks (threads of this process) against the same model on one: the slices
 * that are loaded, logits, the tokens of every method, what it selects, recall and work; failures that only one
 * rank meets. Everything here runs on the CPU; with MASKBENCH_TEST_DEVICE=cuda:0 all ranks share that GPU, and
 * with MASKBENCH_TEST_DEVICE=cuda they have a GPU each.
 */
#include "tests/model/engine_fixture.h"

#include "methods/registry/registry.h"
#include "model/engine/team.h"

#define PROMPT 120
#define STEPS 8
#define ANSWER 64

typedef struct ranked {
    const mb_kernels *kernels;
    mb_device *device;
    mb_team *team;
    mb_model *model;
} ranked;

static int open_ranks(ranked *o, const mb_model_request *wanted, mb_type type, int32_t ranks, mb_error *err)
{
    const char *spec = getenv("MASKBENCH_TEST_DEVICE");
    int ordinals[MB_RANKS_MAX] = {0};
    mb_device_options options = {.type = type, .threads = 1, .arena_bytes = (size_t)1 << 29};
    mb_model_request request = *wanted;
    mb_error note = {0};
    memset(o, 0, sizeof *o);
    int rc = mb_device_open(spec ? spec : "cpu", &options, &o->kernels, &o->device, &note, err);
    /* More ranks than GPUs: some share one, and all add over host memory. */
    for (int32_t r = 0; r < MB_RANKS_MAX && spec && !strchr(spec, ':'); r++)
        ordinals[r] = r % (mb_cuda_device_count(&note) > 0 ? mb_cuda_device_count(&note) : 1);
    if (rc == MB_OK && ranks > 1)
        rc = mb_team_open(&o->team, o->kernels, o->device, &options, ranks, spec ? ordinals : NULL, err);
    request.team = o->team;
    return rc == MB_OK ? mb_model_open(&o->model, &request, o->kernels, o->device, type, err) : rc;
}

static void close_ranks(ranked *o)
{
    mb_model_close(o->model);
    mb_team_close(o->team);
    if (o->device)
        o->kernels->close(o->device);
}

static ranked open_shape(const char *shape, mb_type type, int32_t ranks)
{
    ranked o;
    mb_error err = {0};
    mb_model_request request = {.shape = shape, .seed = 3, .positions = 1024};
    if (open_ranks(&o, &request, type, ranks, &err) != MB_OK)
        fail_msg("%s over %d ranks: %s", shape, ranks, err.text);
    return o;
}

static void make_prompt(int32_t *ids, int32_t n)
{
    mb_random random = mb_random_seed(5);
    for (int32_t i = 0; i < n; i++)
        ids[i] = (int32_t)mb_random_below(&random, 600);
}

static float *logits_of(const ranked *o, int32_t n)
{
    int32_t ids[PROMPT];
    float *logits = NULL;
    mb_error err = {0};
    make_prompt(ids, n);
    if (mb_model_logits(o->model, ids, (size_t)n, &logits, &err) != MB_OK)
        fail_msg("%s", err.text);
    return logits;
}

/* Largest difference, as a share of the largest value. */
static double difference(const float *a, const float *b, size_t n)
{
    double worst = 0, scale = 0;
    for (size_t i = 0; i < n; i++) {
        scale = fmax(scale, fabs((double)b[i]));
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        assert_true(isfinite(a[i]));
    }
    return worst / scale;
}

/* ---- logits ---- */

static void compare_logits(ranked *one, ranked *many, double tolerance)
{
    size_t n = 70 * (size_t)mb_model_config_of(one->model)->vocab;
    float *expected = logits_of(one, 70), *found = logits_of(many, 70), *again = logits_of(many, 70);
    double worst = difference(found, expected, n);
    if (worst > tolerance)
        fail_msg("logits differ by %.3g of the largest", worst);
    assert_memory_equal(found, again, n * sizeof *found);
    free(expected);
    free(found);
    free(again);
}

/* Random weights: what lies in a slice is what the whole model has there. Four ranks share two KV heads. */
static void logits_are_those_of_one_rank(void **state)
{
    static const struct {
        const char *shape;
        mb_type type;
        int32_t ranks;
        double tolerance;
    } cases[] = {{"tiny", MB_F32, 4, 5e-6}, {"tiny", MB_BF16, 2, 0.03}, {"tiny_moe", MB_F32, 2, 5e-6}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ranked one = open_shape(cases[i].shape, cases[i].type, 1);
        ranked many = open_shape(cases[i].shape, cases[i].type, cases[i].ranks);
        compare_logits(&one, &many, cases[i].tolerance);
        close_ranks(&many);
        close_ranks(&one);
    }
}

/* Tensors of a file: separate and joint q, k and v, biases, shared and routed experts. */
static void checkpoints_are_sliced(void **state)
{
    static const struct {
        const char *name;
        int32_t ranks;
    } cases[] = {{"llada2", 2}, {"llada2", 4}, {"sdar_moe", 2}, {"qwen2_untied", 2}, {"qwen2_tied", 2}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        opened folder = open_fixture(cases[i].name, MB_F32);
        ranked one, many;
        mb_error err = {0};
        mb_model_request request = {.path = folder.folder};
        if (open_ranks(&one, &request, MB_F32, 1, &err) != MB_OK ||
            open_ranks(&many, &request, MB_F32, cases[i].ranks, &err) != MB_OK)
            fail_msg("%s: %s", cases[i].name, err.text);
        compare_logits(&one, &many, 5e-6);
        close_ranks(&many);
        close_ranks(&one);
        close_model(&folder);
    }
}

/* ---- methods ---- */

/* What a decode read: the lists of all KV heads, one behind the other. */
typedef struct seen {
    int32_t *words;
    size_t count, capacity;
} seen;

static void put(seen *s, int32_t word)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 4096;
        s->words = realloc(s->words, s->capacity * sizeof *s->words);
        assert_non_null(s->words);
    }
    s->words[s->count++] = word;
}

static void note_selected(void *user, const mb_selected *what)
{
    seen *s = user;
    put(s, what->layer);
    put(s, what->step);
    put(s, what->kv_heads);
    put(s, what->granularity);
    for (int32_t h = 0; what->granularity > 0 && h < what->kv_heads; h++) {
        put(s, what->counts[h]);
        for (int32_t i = 0; i < what->counts[h]; i++)
            put(s, what->ids[(size_t)h * (size_t)what->capacity + (size_t)i]);
    }
}

typedef struct played {
    mb_decode_result result;
    mb_recall recall;
    seen read;
    bool unsupported;
} played;

static void played_free(played *p)
{
    mb_decode_result_free(&p->result);
    mb_recall_free(&p->recall);
    free(p->read.words);
}

static mb_session *open_session_of(const ranked *o)
{
    mb_session *session = NULL;
    mb_error err = {0};
    int32_t ids[PROMPT];
    mb_session_request request = {.batch = 1, .capacity = 256, .prefill_chunk = 64, .graphs = true};
    make_prompt(ids, PROMPT);
    if (mb_session_open(&session, o->model, &request, &err) != MB_OK ||
        mb_session_prefill(session, 0, ids, PROMPT, NULL, &err) != MB_OK)
        fail_msg("%s", err.text);
    return session;
}

static void *options_of(const mb_method *method)
{
    void *options = mb_method_options_new(method);
    mb_error err = {0};
    if (mb_method_options_budget(method, options) >= 0)
        assert_int_equal(mb_method_options_set(method, options, "k", "32", "k", &err), MB_OK);
    return options;
}

/* A decode with everything that is reported of it, and as a shadow of exact attention. */
static played play(mb_session *session, const mb_method *method, mb_attender *exact)
{
    played p = {0};
    mb_error err = {0};
    mb_attender *attender = NULL;
    void *options = options_of(method);
    mb_sampler sampler = fixed_sampler(STEPS);
    mb_decode_request request = {.sampler = &sampler,
                                 .max_new_tokens = ANSWER,
                                 .extra_stop_id = -1,
                                 .selected = note_selected,
                                 .user = &p.read};
    int rc = mb_attender_open(&attender, session, method, options, STEPS, 1, &p.unsupported, &err);
    sampler.ignore_stop = true;
    if (p.unsupported) {
        free(options);
        return p;
    }
    if (rc == MB_OK)
        rc = mb_decode(session, attender, &request, &p.result, &err);
    if (rc == MB_OK) {
        mb_decode_result unread;
        request.selected = NULL;
        request.max_new_tokens = 32;
        rc = mb_decode_shadow(session, exact, &attender, 1, &request, &unread, &p.recall, &err);
        mb_decode_result_free(&unread);
    }
    if (rc != MB_OK)
        fail_msg("%s: %s", method->name, err.text);
    mb_attender_close(attender);
    free(options);
    return p;
}

/* Methods that share a choice among the KV heads of a layer: a rank shares it among its own. */
static bool shares_heads(const char *name)
{
    static const char *const names[] = {"head_budget", "less_is_more", "losa", "sparse_dllm", "tidal"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void compare_maps(const played *one, const played *many)
{
    assert_int_equal(one->result.map_count, many->result.map_count);
    for (size_t i = 0; i < one->result.map_count; i++) {
        const mb_counter_place *x = &one->result.maps[i], *y = &many->result.maps[i];
        assert_int_equal(mb_place_order(x, y), 0);
        assert_true(fabs(x->sum / x->weight - y->sum / y->weight) < 1e-9);
    }
}

static void compare_played(const char *name, const played *one, const played *many)
{
    const mb_decode_result *a = &one->result, *b = &many->result;
    const bool same = one->read.count == many->read.count &&
                      memcmp(one->read.words, many->read.words, one->read.count * sizeof(int32_t)) == 0;
    assert_int_equal(one->unsupported, many->unsupported);
    if (one->unsupported)
        return;
    assert_true(fabs(a->work - b->work) < 1e-9 && fabs(a->work_select - b->work_select) < 1e-9);
    assert_true(fabs(a->engaged - b->engaged) < 1e-9);
    assert_int_equal(one->recall.count, many->recall.count);
    if (shares_heads(name))
        return;
    if (!same || a->count != b->count || memcmp(a->ids, b->ids, a->count * sizeof *a->ids) != 0)
        fail_msg("%s reads or writes other tokens over two ranks", name);
    for (size_t i = 0; i < one->recall.count; i++) {
        const mb_recall_cell *x = &one->recall.cells[i], *y = &many->recall.cells[i];
        assert_int_equal(x->heads, y->heads);
        assert_true(fabs(x->index_recall - y->index_recall) < 1e-9 &&
                    fabs(x->mass_recall - y->mass_recall) < 1e-4);
        for (int32_t h = 0; h < x->heads; h++)
            assert_true(fabsf(x->index_head[h] - y->index_head[h]) < 1e-6f);
    }
    compare_maps(one, many);
}

typedef struct pair {
    opened folder;
    ranked one, many;
    mb_session *a, *b;
    mb_attender *exact_a, *exact_b;
} pair;

static pair open_pair(int32_t ranks)
{
    pair p = {.folder = open_fixture("llada2", MB_F32)};
    mb_error err = {0};
    mb_model_request request = {.path = p.folder.folder};
    if (open_ranks(&p.one, &request, MB_F32, 1, &err) != MB_OK ||
        open_ranks(&p.many, &request, MB_F32, ranks, &err) != MB_OK)
        fail_msg("%s", err.text);
    p.a = open_session_of(&p.one);
    p.b = open_session_of(&p.many);
    p.exact_a = open_attender(p.a, &dense_method, NULL);
    p.exact_b = open_attender(p.b, &dense_method, NULL);
    return p;
}

static void close_pair(pair *p)
{
    mb_attender_close(p->exact_b);
    mb_attender_close(p->exact_a);
    mb_session_close(p->b);
    mb_session_close(p->a);
    close_ranks(&p->many);
    close_ranks(&p->one);
    close_model(&p->folder);
}

static void methods_see_what_they_see_on_one_rank(void **state)
{
    pair p = open_pair(2);
    (void)state;
    for (size_t i = 0; i < mb_registry_count(); i++) {
        const mb_method *method = mb_registry_at(i);
        played alone = play(p.a, method, p.exact_a), split = play(p.b, method, p.exact_b);
        compare_played(method->name, &alone, &split);
        played_free(&alone);
        played_free(&split);
    }
    close_pair(&p);
}

/* More ranks than KV heads: what exact attention writes is the same, and the same again. */
static void more_ranks_than_heads(void **state)
{
    pair p = open_pair(4);
    const mb_method *exact = mb_registry_find("exact"), *sparse = mb_registry_find("mage");
    (void)state;
    played alone = play(p.a, exact, p.exact_a), split = play(p.b, exact, p.exact_b);
    compare_played("exact", &alone, &split);
    played_free(&alone);
    played_free(&split);
    played first = play(p.b, sparse, p.exact_b), again = play(p.b, sparse, p.exact_b);
    compare_played("mage", &first, &again);
    assert_true(first.recall.count > 0);
    assert_int_equal(first.recall.cells[0].heads, 2);
    played_free(&first);
    played_free(&again);
    close_pair(&p);
}

/* ---- fixed work ---- */

/* Keys and values that were filled in, batches, and graphs where there are some. */
static uint64_t work_of(const ranked *o, mb_decode_result *result)
{
    mb_session *session = NULL;
    mb_attender *attender = NULL;
    mb_error err = {0};
    bool unsupported;
    const mb_method *method = mb_registry_find("mage");
    void *options = options_of(method);
    mb_session_request request = {.batch = 2, .capacity = 256, .graphs = true};
    if (mb_session_open(&session, o->model, &request, &err) != MB_OK ||
        mb_session_fill_random(session, 190, 4, &err) != MB_OK ||
        mb_attender_open(&attender, session, method, options, 3, 1, &unsupported, &err) != MB_OK)
        fail_msg("%s", err.text);
    mb_session_rotate(session, 9);
    memset(result, 0, sizeof *result);
    if (mb_decode_fixed_work(session, attender, 3, 3, NULL, result, &err) != MB_OK)
        fail_msg("%s", err.text);
    mb_attender_close(attender);
    mb_session_close(session);
    free(options);
    return result->digest;
}

static void fixed_work_is_the_same(void **state)
{
    pair p = open_pair(2);
    mb_decode_result one, many;
    (void)state;
    assert_int_equal(work_of(&p.one, &one), work_of(&p.many, &many));
    assert_true(fabs(one.work - many.work) < 1e-9);
    assert_int_equal(one.later_count, many.later_count);
    mb_decode_result_free(&one);
    mb_decode_result_free(&many);
    close_pair(&p);
}

/* ---- failures ---- */

/* A method that breaks on one of its ranks. */
static _Atomic int opened_ranks;
static int broken_hook; /* 1 select, 2 kv_added */
typedef struct broken {
    int rank;
} broken;

static int broken_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    (void)host, (void)shape, (void)options, (void)err;
    ((broken *)*self)->rank = opened_ranks++;
    return 0;
}

static int broken_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    (void)out;
    return broken_hook == 1 && ((broken *)self)->rank == 1 && call->layer == 1 && call->step == 2
               ? mb_fail(err, -1, "planted in select")
               : 0;
}

static int broken_added(void *self, const mb_call *call, mb_error *err)
{
    return broken_hook == 2 && ((broken *)self)->rank == 1 && call->layer == 2 && call->phase == MB_PHASE_COMMIT
               ? mb_fail(err, -1, "planted in kv_added")
               : 0;
}

static const mb_method broken_method = {.abi = MB_METHOD_ABI,
                                        .size = sizeof(mb_method),
                                        .name = "broken",
                                        .open = broken_open,
                                        .select = broken_select,
                                        .kv_added = broken_added,
                                        .state_size = sizeof(broken)};

static void a_failure_on_one_rank_is_everyones(void **state)
{
    pair p = open_pair(4);
    mb_sampler sampler = fixed_sampler(4);
    const int stop = 1;
    mb_decode_request request = {.sampler = &sampler, .max_new_tokens = 32, .extra_stop_id = -1};
    mb_decode_result result;
    mb_error err = {0};
    (void)state;
    for (broken_hook = 1; broken_hook <= 2; broken_hook++) {
        opened_ranks = 0;
        mb_attender *attender = open_attender(p.b, &broken_method, NULL);
        assert_int_equal(mb_decode(p.b, attender, &request, &result, &err), MB_E_SAMPLE);
        assert_non_null(strstr(err.text, broken_hook == 1 ? "planted in select" : "planted in kv_added"));
        mb_recall recall = {0};
        opened_ranks = 0;
        assert_int_equal(mb_decode_shadow(p.b, p.exact_b, &attender, 1, &request, &result, &recall, &err), MB_OK);
        assert_true(recall.failed);
        assert_non_null(strstr(recall.error.text, "planted"));
        mb_decode_result_free(&result);
        mb_recall_free(&recall);
        mb_attender_close(attender);
    }
    request.stop = &stop;
    assert_int_equal(mb_decode(p.b, p.exact_b, &request, &result, &err), MB_E_STOP);
    request.stop = NULL;
    assert_int_equal(mb_decode(p.b, p.exact_b, &request, &result, &err), MB_OK);
    mb_decode_result_free(&result);
    close_pair(&p);
}

static void what_does_not_divide_is_refused(void **state)
{
    ranked o;
    mb_error err = {0};
    mb_model_request request = {.shape = "tiny", .positions = 256};
    (void)state;
    assert_int_equal(open_ranks(&o, &request, MB_F32, 3, &err), MB_E_INPUT);
    assert_string_equal(err.text,
                        "tiny cannot be split over 3 devices: its query heads do not divide (8 query heads, 2 "
                        "KV heads, inner width 768, experts 0 wide); \"parallel\" can be 1, 2, 4, 8");
    close_ranks(&o);
    assert_int_equal(open_ranks(&o, &request, MB_F32, MB_RANKS_MAX + 1, &err), MB_E_INPUT);
    close_ranks(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_one_rank),
        cmocka_unit_test(checkpoints_are_sliced),
        cmocka_unit_test(methods_see_what_they_see_on_one_rank),
        cmocka_unit_test(more_ranks_than_heads),
        cmocka_unit_test(fixed_work_is_the_same),
        cmocka_unit_test(a_failure_on_one_rank_is_everyones),
        cmocka_unit_test(what_does_not_divide_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
