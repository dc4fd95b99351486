/*
 * test_attender.c - what a method sees and what comes of its answers: order of the hooks, by-products against sums
 * in double, work of a known index, recall of methods that choose the best or the worst keys, states of its own,
 * and failures that stay with the method that made them. The methods live here; device memory is plain memory.
 */
#include "tests/model/fake_method.h"

/* ---- the stage: one model, one prompt, one session ---- */

struct stage {
    opened model;
    mb_session *session;
    mb_sampler sampler;
    size_t prompt;
};

static int set_up(void **state)
{
    struct stage *s = calloc(1, sizeof *s);
    mb_error err = {0};
    size_t n = 0;
    assert_non_null(s);
    s->model = open_model("models/tiny", MB_F32, 2);
    int32_t *ids = needle_prompt(&s->model, "amber-hill", "55012", 8, &n);
    s->session = open_session(&s->model, 1, 512);
    s->sampler = fixed_sampler(3);
    s->sampler.ignore_stop = true;
    s->prompt = n;
    assert_int_equal(mb_session_prefill(s->session, 0, ids, n, NULL, &err), MB_OK);
    free(ids);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct stage *s = *state;
    mb_session_close(s->session);
    close_model(&s->model);
    free(s);
    return 0;
}

static int run(struct stage *s, mb_attender *attender, mb_decode_result *result, mb_error *err)
{
    mb_decode_request request = {.sampler = &s->sampler, .max_new_tokens = 20, .extra_stop_id = -1, .request = 77};
    return mb_decode(s->session, attender, &request, result, err);
}

static void must_run(struct stage *s, mb_attender *attender, mb_decode_result *result)
{
    mb_error err = {0};
    if (run(s, attender, result, &err) != MB_OK)
        fail_msg("%s", err.text);
}

/* ---- tests ---- */

static void hooks_in_order(void **state)
{
    struct stage *s = *state;
    struct fake_options options = {.behaviour = DENSE};
    mb_attender *attender = open_attender(s->session, &fake_method, &options);
    mb_decode_result result;
    mb_text wanted = {0};
    int32_t n = (int32_t)s->prompt / 32 * 32, left = 32 - (int32_t)s->prompt % 32;
    must_run(s, attender, &result);
    assert_int_equal(result.blocks, left >= 20 ? 1 : 2);
    mb_text_printf(&wanted, "request_begin b0 s0 p0 l-1 N%d m0\n", n);
    for (int l = 0; l < 6; l++)
        mb_text_printf(&wanted, "kv_added b0 s0 p0 l%d N%d m0\n", l, n);
    for (int b = 0; b < result.blocks; b++) {
        static const int shares[3] = {11, 11, 10};
        int masks = b == 0 ? left : 32, at = n + 32 * b;
        mb_text_printf(&wanted, "block_begin b%d s0 p1 l-1 N%d m%d\n", b, at, masks);
        for (int t = 1; t <= 3 && masks > 0; t++) {
            int phase = t == 1 ? 1 : 2;
            mb_text_printf(&wanted, "step_begin b%d s%d p%d l-1 N%d m%d\n", b, t, phase, at, masks);
            for (int l = 0; l < 6; l++)
                mb_text_printf(&wanted, "select b%d s%d p%d l%d N%d m%d\n", b, t, phase, l, at, masks);
            mb_text_printf(&wanted, "step_end b%d s%d p%d l-1 N%d m%d\n", b, t, phase, at, masks);
            masks = masks > shares[t - 1] ? masks - shares[t - 1] : 0;
        }
        for (int l = 0; l < 6; l++)
            mb_text_printf(&wanted, "select b%d s0 p3 l%d N%d m0\nkv_added b%d s0 p3 l%d N%d m0\n", b, l, at, b, l,
                           at);
        mb_text_printf(&wanted, "block_end b%d s0 p3 l-1 N%d m0\n", b, at + 32);
    }
    assert_string_equal(last_fake->log.data, wanted.data);
    assert_false(last_fake->late_alloc);
    assert_true(result.counters[0] == last_fake->selected && result.counters[1] == 0);
    mb_text_free(&wanted);
    mb_decode_result_free(&result);
    mb_attender_close(attender);
}

/* ---- a branch beside the layer: only a log of where it begins, ends and is joined ---- */

static int log_begin(mb_device *device)
{
    (void)device;
    mb_text_puts(&last_fake->log, "{\n");
    return MB_OK;
}

static int log_end(mb_device *device)
{
    (void)device;
    mb_text_puts(&last_fake->log, "}\n");
    return MB_OK;
}

static int log_join(mb_device *device)
{
    (void)device;
    mb_text_puts(&last_fake->log, "join\n");
    return MB_OK;
}

/* Nothing of a method but observe() lies between the begin of a branch and the join: it could write what observe()
 * reads, or read what that writes. A commit has no branch, since kv_added() follows within the layer. */
static void branches_are_joined(void **state)
{
    struct stage *s = *state;
    const mb_kernels *kernels = s->session->kernels;
    mb_kernels branching = *kernels;
    branching.branch_begin = log_begin;
    branching.branch_end = log_end;
    branching.branch_join = log_join;
    s->session->kernels = &branching;
    s->session->measure.counting = false;
    struct fake_options options = {.behaviour = WATCH};
    mb_attender *attender = open_attender(s->session, &fake_method, &options);
    mb_decode_result result;
    must_run(s, attender, &result);
    int branches = 0, observed = 0;
    bool inside = false, open = false;
    for (const char *line = last_fake->log.data; *line; line = strchr(line, '\n') + 1) {
        if (*line == '{') {
            assert_false(open);
            inside = open = true;
            branches++;
        } else if (*line == '}') {
            assert_true(inside);
            inside = false;
        } else if (strncmp(line, "join", 4) == 0) {
            assert_false(inside);
            open = false;
        } else if (strncmp(line, "observe", 7) == 0) {
            assert_true(inside == open);
            observed++;
        } else if (open) {
            fail_msg("before the join: %.*s", (int)strcspn(line, "\n"), line);
        }
    }
    assert_false(open);
    assert_int_equal(branches, 6 * result.denoise_forwards);
    assert_int_equal(observed, 6 * (result.denoise_forwards + result.commit_forwards));
    assert_true(last_fake->worst_error < 2e-6);
    mb_decode_result_free(&result);
    mb_attender_close(attender);
    s->session->kernels = kernels;
    s->session->measure.counting = true;
}

static void masses_are_right(void **state)
{
    struct stage *s = *state;
    for (int rows = 0; rows < 3; rows++)
        for (int over = 0; over < 2; over++) {
            struct fake_options options = {
                .behaviour = WATCH, .rows = (mb_row_set)rows, .normaliser = (mb_normaliser)over};
            mb_attender *attender = open_attender(s->session, &fake_method, &options);
            mb_decode_result result;
            must_run(s, attender, &result);
            assert_int_equal(last_fake->observed, 6 * (result.denoise_forwards + result.commit_forwards));
            assert_true(last_fake->worst_error < 2e-6);
            if (over == MB_OVER_PREFIX)
                assert_true(fabs(last_fake->smallest_sum - 1) < 1e-9 && fabs(last_fake->largest_sum - 1) < 1e-9);
            else
                assert_true(last_fake->largest_sum < 1);
            assert_true(result.engaged == 0 && result.work == 1);
            mb_decode_result_free(&result);
            mb_attender_close(attender);
        }
}

/* The index is known: k pages of 16 keys of each KV head, in every layer or in every other one. */
static void work_of_a_known_index(void **state)
{
    struct stage *s = *state;
    for (int alternate = 0; alternate < 2; alternate++) {
        struct fake_options options = {.behaviour = alternate ? ALTERNATE : PAGES, .k = 4, .granularity = 16};
        mb_attender *attender = open_attender(s->session, &fake_method, &options);
        mb_decode_result result;
        must_run(s, attender, &result);
        double attended = 0, present = 0, chosen = 0, n = (double)(s->prompt / 32 * 32);
        int32_t left = 32 - (int32_t)s->prompt % 32;
        for (int b = 0; b < result.blocks; b++, n += 32) {
            int forwards = b > 0 ? 3 : left > 22 ? 3 : left > 11 ? 2 : 1;
            attended += forwards * (alternate ? (64 + n) / 2 : 64);
            present += forwards * n;
            chosen += forwards * 8.0;
        }
        assert_true(fabs(result.work - attended / present) < 1e-12);
        assert_true(fabs(result.work_select - chosen / present) < 1e-12);
        assert_true(result.engaged == (alternate ? 0.5 : 1));
        mb_decode_result_free(&result);
        mb_attender_close(attender);
    }
}

static void same_tokens(const mb_decode_result *a, const mb_decode_result *b)
{
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->ids, b->ids, a->count * sizeof *a->ids);
}

/* An index of everything, and a method's own state over the whole prefix, decode what exact attention decodes. */
static void everything_equals_exact(void **state)
{
    static const enum behaviour behaviours[3] = {ALL_PAGES, OWN_STATE, OPAQUE_STATE};
    struct stage *s = *state;
    mb_attender *exact = open_attender(s->session, &dense_method, NULL);
    mb_decode_result reference;
    must_run(s, exact, &reference);
    for (int i = 0; i < 3; i++) {
        struct fake_options options = {.behaviour = behaviours[i], .granularity = 32};
        mb_attender *attender = open_attender(s->session, &fake_method, &options);
        mb_decode_result result;
        must_run(s, attender, &result);
        same_tokens(&reference, &result);
        assert_true(result.engaged == 1);
        assert_true(result.work == (behaviours[i] == OPAQUE_STATE ? 0 : 1));
        assert_true((result.work_select > 0) == (behaviours[i] == OPAQUE_STATE));
        mb_decode_result_free(&result);
        mb_attender_close(attender);
    }
    mb_decode_result_free(&reference);
    mb_attender_close(exact);
}

static void recall_of_the_best_and_the_worst(void **state)
{
    struct stage *s = *state;
    mb_error err = {0};
    int32_t n = (int32_t)s->prompt / 32 * 32;
    struct fake_options options[8] = {{.behaviour = BEST, .k = 24},
                                      {.behaviour = WORST, .k = 24},
                                      {.behaviour = FAIL},
                                      {.behaviour = WATCH},
                                      {.behaviour = BEST, .k = 4000},
                                      {.behaviour = UNSORTED},
                                      {.behaviour = OPAQUE_STATE},
                                      {.behaviour = PAGES, .k = 2, .granularity = 16}};
    mb_attender *exact = open_attender(s->session, &dense_method, NULL), *shadows[8];
    mb_recall recalls[8];
    mb_decode_result alone, result;
    must_run(s, exact, &alone);
    struct fake *fakes[8];
    for (int i = 0; i < 8; i++) {
        shadows[i] = open_attender(s->session, &fake_method, &options[i]);
        fakes[i] = last_fake;
    }
    mb_decode_request request = {.sampler = &s->sampler, .max_new_tokens = 20, .extra_stop_id = -1};
    if (mb_decode_shadow(s->session, exact, shadows, 8, &request, &result, recalls, &err) != MB_OK)
        fail_msg("%s", err.text);
    same_tokens(&alone, &result);
    int64_t calls = 6 * (int64_t)result.denoise_forwards;
    for (int i = 0; i < 2; i++) {
        assert_false(recalls[i].failed);
        assert_int_equal(recalls[i].sparse_calls, calls);
        assert_int_equal(recalls[i].dense_calls, 0);
        int64_t seen = 0;
        for (size_t c = 0; c < recalls[i].count; c++) {
            const mb_recall_cell *cell = &recalls[i].cells[c];
            seen += cell->blocks;
            assert_int_equal(cell->heads, 2);
            assert_true(fabs(cell->index_recall - (i == 0 ? 1 : 0)) < 1e-12);
            if (i == 0)
                assert_true(fabs(cell->mass_recall - 1) < 1e-12);
            else
                assert_true(cell->mass_recall < 0.5);
            assert_true(cell->captured_mass > 0 && cell->captured_mass < 1);
            assert_true(
                fabs(((double)cell->index_head[0] + (double)cell->index_head[1]) / 2 - cell->index_recall) < 1e-6);
        }
        assert_int_equal(seen, calls);
    }
    assert_true(recalls[2].failed); /* its failure stays its own */
    assert_non_null(
        strstr(recalls[2].error.text, "method fake failed in select(), layer 2, block 0, step 2: no luck today"));
    assert_int_equal(recalls[3].dense_calls, calls);
    assert_int_equal(recalls[3].sparse_calls, 0);
    assert_int_equal(recalls[3].count, 0);
    assert_true(fakes[3]->observed > 0 && fakes[3]->worst_error < 2e-6);
    assert_true(n < 4000);
    assert_int_equal(recalls[4].dense_calls, calls); /* everything is dense, not recall 1 */
    assert_int_equal(recalls[4].count, 0);
    assert_true(recalls[5].failed);
    if (!strstr(recalls[5].error.text, "comes twice"))
        fail_msg("%s", recalls[5].error.text);
    assert_int_equal(recalls[6].dense_calls + recalls[6].sparse_calls, 0);
    assert_int_equal(recalls[7].sparse_calls, calls);
    for (int i = 7; i >= 0; i--) {
        mb_recall_free(&recalls[i]);
        mb_attender_close(shadows[i]);
    }
    mb_decode_result_free(&alone);
    mb_decode_result_free(&result);
    mb_attender_close(exact);
}

/* The measure itself on numbers that one can follow. */
static void recall_by_hand(void **state)
{
    float mass[2][64] = {{0.4f, 0.1f, 0.2f, 0.1f, 0.05f, 0.0f, 0.0f}, {0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f}};
    int32_t rank[2][64], order[2][7] = {{0, 2, 1, 3, 4, 5, 6}, {0, 1, 2, 3, 4, 5, 6}};
    double cumulated[2][65] = {{0}};
    mb_recall_sum sum = {0};
    mb_error err = {0};
    (void)state;
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 7; i++) {
            rank[h][order[h][i]] = i;
            cumulated[h][i + 1] = cumulated[h][i] + (double)mass[h][order[h][i]];
        }
    mb_ranking ranking = {.heads = 2,
                          .prefix = 7,
                          .stride = 64,
                          .rank = &rank[0][0],
                          .cumulated = &cumulated[0][0],
                          .mass = &mass[0][0]};
    int32_t ids[2][4] = {{0, 3, 6, 0}, {5, 6, 0, 0}}, counts[2] = {3, 2};
    /* Head 0: {0,3,6} against {0,2,1}: 1 of 3, 0.5 of 0.7. Head 1: {5,6} against {0,1}: 0 of 2, equal mass. */
    assert_int_equal(mb_recall_compare(&ranking, 1, 4, &ids[0][0], counts, &sum, &err), 0);
    assert_true(fabs(sum.index - (1.0 / 3) / 2) < 1e-6);
    assert_true(fabs(sum.mass - (0.5 / 0.7 + 1) / 2) < 1e-6);
    assert_true(fabs(sum.captured - (0.5 + 0.2) / 2) < 1e-6);
    /* Pages of 4 tokens: {1} is keys 4..6; a head that has everything is left out. */
    int32_t pages[2][2] = {{1, 0}, {0, 1}}, page_counts[2] = {1, -1};
    sum = (mb_recall_sum){0};
    assert_int_equal(mb_recall_compare(&ranking, 4, 2, &pages[0][0], page_counts, &sum, &err), 0);
    assert_true(sum.index == 0 && fabs(sum.mass - 0.05 / 0.7) < 1e-6);
    assert_int_equal(sum.head_blocks[1], 0);
    page_counts[0] = page_counts[1] = 2;
    pages[0][0] = 0, pages[0][1] = 1;
    assert_int_equal(mb_recall_compare(&ranking, 4, 2, &pages[0][0], page_counts, &sum, &err), 1);
    counts[0] = 0; /* nothing chosen: recall 0 */
    sum = (mb_recall_sum){0};
    assert_int_equal(mb_recall_compare(&ranking, 1, 4, &ids[0][0], counts, &sum, &err), 0);
    assert_true(sum.index_head[0] == 0 && sum.mass_head[0] == 0);
    counts[0] = 5;
    assert_int_equal(mb_recall_compare(&ranking, 1, 4, &ids[0][0], counts, &sum, &err), MB_E_SAMPLE);
    counts[0] = 3;
    ids[0][2] = 7;
    assert_int_equal(mb_recall_compare(&ranking, 1, 4, &ids[0][0], counts, &sum, &err), MB_E_SAMPLE);
}

static void failures_name_the_place(void **state)
{
    struct stage *s = *state;
    static const struct {
        enum behaviour behaviour;
        const char *text;
    } cases[] = {{FAIL, "method fake failed in select(), layer 2, block 0, step 2: no luck today"},
                 {OWN_NAN, "method fake, layer 0, block 0, step 2: attend() gave an output that is not finite"},
                 {NO_PAGES, "method fake, layer 0, block 0, step 1: select() gave no usable page set"}};
    for (size_t i = 0; i < 3; i++) {
        struct fake_options options = {.behaviour = cases[i].behaviour};
        mb_attender *attender = open_attender(s->session, &fake_method, &options);
        mb_decode_result result;
        mb_error err = {0};
        assert_int_equal(run(s, attender, &result, &err), MB_E_SAMPLE);
        if (!strstr(err.text, cases[i].text))
            fail_msg("%s", err.text);
        assert_int_equal(s->session->prefix[0], s->session->snapshot[0]);
        mb_attender_close(attender);
    }
    /* The cell after the failures is as good as ever. */
    mb_attender *exact = open_attender(s->session, &dense_method, NULL);
    mb_decode_result result;
    must_run(s, exact, &result);
    mb_decode_result_free(&result);
    mb_attender_close(exact);
}

static void opening(void **state)
{
    struct stage *s = *state;
    mb_attender *attender = NULL;
    mb_error err = {0};
    bool unsupported = false;
    size_t before = s->model.kernels->mark(s->model.device);
    struct fake_options options = {.behaviour = DENSE, .granularity = 16};
    mb_shape shape;
    mb_session_shape(s->session, 7, &shape);
    assert_int_equal(shape.steps, 7);
    assert_int_equal(shape.stride, 512);
    assert_int_equal(shape.element, MB_ELEMENT_F32);
    mb_shape half;
    mb_shape_make(mb_model_config_of(s->model.model), MB_F16, 1, 512, 0, &half);
    assert_true(half.element == MB_ELEMENT_F16 && half.element_size == 2);
    size_t planned = mb_attender_bytes(&fake_method, &shape, &options);
    attender = open_attender(s->session, &fake_method, &options);
    assert_int_equal(s->model.kernels->mark(s->model.device) - before, planned);
    assert_true(planned > 2 * 2 * 512 * sizeof(float));
    mb_attender_close(attender);
    assert_int_equal(s->model.kernels->mark(s->model.device), before);
    options.k = 12345;
    assert_int_equal(mb_attender_open(&attender, s->session, &fake_method, &options, 0, 1, &unsupported, &err),
                     MB_E_INPUT);
    assert_true(unsupported);
    assert_string_equal(err.text, "block 32 is not to my taste");
    options = (struct fake_options){.behaviour = FAIL_OPEN};
    assert_int_equal(mb_attender_open(&attender, s->session, &fake_method, &options, 0, 1, &unsupported, &err),
                     MB_E_SAMPLE);
    assert_false(unsupported);
    assert_non_null(strstr(err.text, "the moon is not full"));
    assert_int_equal(s->model.kernels->mark(s->model.device), before);
    /* A method built against an older contract, which ended before step_end: its later fields are not read. */
    mb_method older = fake_method;
    older.size = (uint32_t)offsetof(mb_method, step_end);
    options = (struct fake_options){.behaviour = DENSE};
    attender = open_attender(s->session, &older, &options);
    mb_decode_result result;
    must_run(s, attender, &result);
    assert_null(strstr(last_fake->log.data, "step_end"));
    assert_non_null(strstr(last_fake->log.data, "step_begin"));
    assert_true(result.counters[0] == 0);
    mb_decode_result_free(&result);
    mb_attender_close(attender);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hooks_in_order),
        cmocka_unit_test(branches_are_joined),
        cmocka_unit_test(masses_are_right),
        cmocka_unit_test(work_of_a_known_index),
        cmocka_unit_test(everything_equals_exact),
        cmocka_unit_test(recall_of_the_best_and_the_worst),
        cmocka_unit_test(recall_by_hand),
        cmocka_unit_test(failures_name_the_place),
        cmocka_unit_test(opening),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
