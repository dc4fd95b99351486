/*
 * test_forward.c - the transformer, the cache and decoding against computations that do not share their code:
 * logits of Hugging Face's classes (fixtures/make_golden.py), a network that recomputes the whole text for every
 * forward, and a needle whose value is known.
 */
#include "tests/model/engine_fixture.h"

/* ---- golden logits ---- */

struct golden {
    char *data;
    int32_t n, vocab, kept;
    const int32_t *ids, *best, *positions;
    const float *lead, *logits;
};

static struct golden read_golden(const char *name)
{
    struct golden g = {0};
    char path[256];
    mb_error err = {0};
    size_t size = 0;
    snprintf(path, sizeof path, FIXTURES "%s.golden", name);
    if (mb_file_read(path, 1 << 20, &g.data, &size, &err) != MB_OK)
        fail_msg("%s", err.text);
    const int32_t *words = (const int32_t *)(void *)g.data;
    assert_int_equal(words[0], 0x6d62676c);
    g.n = words[1];
    g.vocab = words[2];
    g.kept = words[3];
    g.ids = words + 4;
    g.best = g.ids + g.n;
    g.lead = (const float *)(const void *)(g.best + g.n);
    g.positions = (const int32_t *)(const void *)(g.lead + g.n);
    g.logits = (const float *)(const void *)(g.positions + g.kept);
    assert_int_equal(size, 4 * (4 + 3 * (size_t)g.n + (size_t)g.kept * (1 + (size_t)g.vocab)));
    return g;
}

/* Largest error of the kept rows relative to the largest logit; best tokens must agree where the lead is clear. */
static double compare_golden(const opened *o, const struct golden *g, double clear)
{
    float *logits = NULL;
    mb_error err = {0};
    double worst = 0, largest = 0;
    if (mb_model_logits(o->model, g->ids, (size_t)g->n, &logits, &err) != MB_OK)
        fail_msg("%s", err.text);
    for (int32_t i = 0; i < g->kept; i++)
        for (int32_t v = 0; v < g->vocab; v++) {
            double wanted = (double)g->logits[(size_t)i * (size_t)g->vocab + (size_t)v];
            double got = (double)logits[(size_t)g->positions[i] * (size_t)g->vocab + (size_t)v];
            worst = fmax(worst, fabs(got - wanted));
            largest = fmax(largest, fabs(wanted));
        }
    for (int32_t i = 0; i < g->n; i++) {
        const float *row = logits + (size_t)i * (size_t)g->vocab;
        int32_t best = 0;
        for (int32_t v = 1; v < g->vocab; v++)
            best = row[v] > row[best] ? v : best;
        if ((double)g->lead[i] > clear * largest)
            assert_int_equal(best, g->best[i]);
    }
    free(logits);
    return worst / largest;
}

static void golden_tiny(void **state)
{
    static const struct {
        mb_type type;
        double most;
    } cases[] = {{MB_F32, 1e-4}, {MB_F16, 0.00625}, {MB_BF16, 0.05}}; /* f16: three bits more than bf16 */
    struct golden g = read_golden("tiny");
    (void)state;
    for (int i = 0; i < 3; i++) {
        opened o = open_model("models/tiny", cases[i].type, 2);
        double error = compare_golden(&o, &g, cases[i].most);
        print_message("models/tiny, %s: largest error %.2e of the largest logit\n", mb_type_name(cases[i].type),
                      error);
        assert_true(error < cases[i].most);
        close_model(&o);
    }
    free(g.data);
}

static void golden_qwen2(void **state)
{
    static const char *const names[2] = {"qwen2_untied", "qwen2_tied"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct golden g = read_golden(names[i / 2]);
        bool wide = i % 2 == 0;
        opened o = open_fixture(names[i / 2], wide ? MB_F32 : MB_BF16);
        const mb_model_config *config = mb_model_config_of(o.model);
        assert_int_equal(config->family, MB_FAMILY_FAST_DLLM_V2);
        assert_true(config->qkv_bias && !config->qk_norm && config->tied == (i / 2 == 1));
        double error = compare_golden(&o, &g, wide ? 1e-4 : 0.1);
        print_message("%s, %s: largest error %.2e of the largest logit\n", names[i / 2], wide ? "f32" : "bf16",
                      error);
        assert_true(error < (wide ? 1e-4 : 0.05));
        close_model(&o);
        free(g.data);
    }
}

/* ---- the cache ---- */

static void upload_pass(mb_session *session, mb_attender *attender, mb_phase phase, const int32_t *tokens,
                        int32_t rows, int32_t row_offset, int32_t *ids, float *probability)
{
    mb_error err = {0};
    mb_forward_run run = {.attender = attender,
                          .phase = phase,
                          .step = phase == MB_PHASE_COMMIT ? 0 : 1,
                          .batch = 1,
                          .rows = rows,
                          .row_offset = row_offset,
                          .confidence = MB_F32};
    if (mb_step(session, &run, tokens, ids, probability, NULL, &err) != MB_OK)
        fail_msg("%s", err.text);
}

/* Prefill of eight blocks, in one chunk or in chunks of two, leaves the keys that prefill of four and four commits
 * leave. */
static void prefill_equals_commits(void **state)
{
    (void)state;
    opened o = open_model("models/tiny", MB_F32, 2);
    mb_error err = {0};
    size_t n = 0;
    int32_t *ids = needle_prompt(&o, "amber-hill", "1234567", 16, &n), best[32];
    float probability[32];
    assert_true(n >= 256);
    mb_session *whole = open_session(&o, 1, 320), *parts = open_session(&o, 1, 320), *chunked = NULL;
    mb_session_request request = {.batch = 1, .capacity = 320, .prefill_chunk = 64};
    assert_int_equal(mb_session_open(&chunked, o.model, &request, &err), MB_OK);
    mb_attender *attender = open_attender(parts, &dense_method, NULL);
    assert_int_equal(mb_session_prefill(whole, 0, ids, 256, NULL, &err), MB_OK);
    assert_int_equal(mb_session_prefill(chunked, 0, ids, 256, NULL, &err), MB_OK);
    assert_int_equal(mb_session_prefill(parts, 0, ids, 128, NULL, &err), MB_OK);
    for (int b = 0; b < 4; b++) {
        upload_pass(parts, attender, MB_PHASE_COMMIT, ids + 128 + 32 * b, 32, 0, best, probability);
        parts->prefix[0] += 32;
    }
    double worst[2] = {0}, largest = 0;
    for (int32_t l = 0; l < whole->config->layers; l++)
        for (size_t h = 0; h < 2; h++)
            for (size_t j = 0; j < 256 * 64; j++) {
                size_t at = h * 320 * 64 + j;
                for (int side = 0; side < 2; side++) {
                    const float *a = side ? whole->kv[l].v : whole->kv[l].k;
                    const float *b = side ? parts->kv[l].v : parts->kv[l].k;
                    const float *c = side ? chunked->kv[l].v : chunked->kv[l].k;
                    worst[0] = fmax(worst[0], fabs((double)a[at] - (double)b[at]));
                    worst[1] = fmax(worst[1], fabs((double)a[at] - (double)c[at]));
                    largest = fmax(largest, fabs((double)a[at]));
                }
            }
    print_message("keys and values, prefill against commits %.2e, against chunks %.2e (largest %.1f)\n", worst[0],
                  worst[1], largest);
    assert_true(worst[0] < 1e-4 * largest);
    assert_true(worst[1] < 1e-4 * largest);
    /* The best token behind the prefix, by prefill and by the last commit. */
    assert_int_equal(whole->seed[0], best[31]);
    mb_attender_close(attender);
    mb_session_close(chunked);
    mb_session_close(parts);
    mb_session_close(whole);
    free(ids);
    close_model(&o);
}

/* A forward of 8 rows on the block's cache gives what the whole block gave, when no token has changed since; and
 * it sees the keys of the other sub-blocks as they were left there. */
static void sub_block_rows(void **state)
{
    (void)state;
    opened o = open_fixture("qwen2_untied", MB_F32);
    struct golden g = read_golden("qwen2_untied");
    mb_session *session = open_session(&o, 1, 128);
    mb_attender *attender = open_attender(session, &dense_method, NULL);
    int32_t tokens[32], whole[32], part[32];
    float whole_p[32], part_p[32], changed_p[32];
    mb_error err = {0};
    assert_int_equal(mb_session_prefill(session, 0, g.ids, 45, NULL, &err), MB_OK);
    for (int i = 0; i < 32; i++)
        tokens[i] = i < 13 ? g.ids[32 + i] : 663;
    upload_pass(session, attender, MB_PHASE_FIRST_STEP, tokens, 32, 0, whole, whole_p);
    for (int32_t offset = 0; offset < 32; offset += 8) {
        upload_pass(session, attender, MB_PHASE_LATER_STEP, tokens, 8, offset, part, part_p);
        for (int i = 0; i < 8; i++) {
            assert_int_equal(part[i], whole[offset + i]);
            assert_true(fabsf(part_p[i] - whole_p[offset + i]) < 1e-4f * whole_p[offset + i]);
        }
    }
    /* Stale keys: a change of slot 20 is not seen by slots 0..7 until slot 20's own rows run again. */
    tokens[20] = 17;
    upload_pass(session, attender, MB_PHASE_LATER_STEP, tokens, 8, 0, part, changed_p);
    for (int i = 0; i < 8; i++)
        assert_true(fabsf(changed_p[i] - whole_p[i]) < 1e-4f * whole_p[i]);
    upload_pass(session, attender, MB_PHASE_LATER_STEP, tokens, 8, 16, part, part_p);
    upload_pass(session, attender, MB_PHASE_LATER_STEP, tokens, 8, 0, part, changed_p);
    float moved = 0;
    for (int i = 0; i < 8; i++)
        moved = fmaxf(moved, fabsf(changed_p[i] - whole_p[i]) / whole_p[i]);
    assert_true(moved > 1e-3f);
    mb_attender_close(attender);
    mb_session_close(session);
    free(g.data);
    close_model(&o);
}

/* ---- decoding against a network without a cache ---- */

/* Recomputes the block-causal logits of the whole text for every forward, and the softmax in double. */
struct plain {
    mb_model *model;
    int32_t text[2048], cached;
    int32_t forwards;
};

static void plain_rows(struct plain *p, const int32_t *tokens, int32_t first, int32_t rows, mb_type confidence,
                       int32_t *ids, float *probability)
{
    const mb_model_config *config = mb_model_config_of(p->model);
    float *logits = NULL;
    mb_error err = {0};
    if (tokens)
        memcpy(p->text + p->cached, tokens, (size_t)config->block * sizeof *tokens);
    size_t n = (size_t)p->cached + (tokens ? (size_t)config->block : 0);
    if (mb_model_logits(p->model, p->text, n, &logits, &err) != MB_OK)
        fail_msg("%s", err.text);
    for (int32_t r = 0; r < rows; r++) {
        const float *row = logits + (size_t)(first + r) * (size_t)config->vocab;
        double sum = 0, top = -INFINITY;
        for (int32_t v = 0; v < config->vocab; v++)
            top = fmax(top, (double)row[v]);
        for (int32_t v = 0; v < config->vocab; v++)
            sum += exp((double)row[v] - top);
        float best = -1;
        for (int32_t v = 0; v < config->vocab; v++) {
            float probable = mb_type_round((float)(exp((double)row[v] - top) / sum), confidence);
            if (probable > best) {
                best = probable;
                ids[r] = v;
            }
        }
        probability[r] = best;
    }
    free(logits);
    p->forwards++;
}

static int plain_prefill(void *self, const int32_t *ids, int32_t n, int32_t *next, mb_error *err)
{
    struct plain *p = self;
    float probability;
    (void)err;
    memcpy(p->text, ids, (size_t)n * sizeof *ids);
    p->cached = n;
    plain_rows(p, NULL, n - 1, 1, MB_F32, next, &probability);
    return MB_OK;
}

static int plain_denoise(void *self, int32_t step, const int32_t *tokens, int32_t rows, int32_t row_offset,
                         int32_t *ids, float *probability, mb_error *err)
{
    struct plain *p = self;
    (void)step, (void)err;
    plain_rows(p, tokens, p->cached + row_offset, rows, MB_BF16, ids, probability);
    return MB_OK;
}

static int plain_commit(void *self, const int32_t *tokens, int32_t *next, mb_error *err)
{
    struct plain *p = self;
    int32_t block = mb_model_config_of(p->model)->block;
    float probability;
    (void)err;
    plain_rows(p, tokens, p->cached + block - 1, 1, MB_F32, next, &probability);
    p->cached += block;
    return MB_OK;
}

static void decode_equals_recomputing(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        bool fast = i >= 3;
        opened o = fast ? open_fixture("qwen2_untied", MB_F32) : open_model("models/tiny", MB_F32, 2);
        const mb_model_config *config = mb_model_config_of(o.model);
        struct golden g = read_golden(fast ? "qwen2_untied" : "tiny");
        size_t n = i % 3 == 0 ? 45 : i % 3 == 1 ? 64 : 20;
        mb_sampler sampler;
        mb_sampler_default(config, &sampler);
        if (i % 3 == 1)
            sampler = fixed_sampler(5);
        sampler.ignore_stop = fast; /* a random model stops anywhere */
        sampler.threshold = fast ? 0.05 : sampler.threshold;
        mb_session *session = open_session(&o, 1, 192);
        mb_attender *attender = open_attender(session, &dense_method, NULL);
        mb_error err = {0};
        mb_decode_request request = {.sampler = &sampler, .max_new_tokens = 64, .extra_stop_id = -1};
        mb_decode_result result;
        assert_int_equal(mb_session_prefill(session, 0, g.ids, n, NULL, &err), MB_OK);
        if (mb_decode(session, attender, &request, &result, &err) != MB_OK)
            fail_msg("%s", err.text);
        struct plain plain = {.model = o.model};
        mb_network network = {
            .self = &plain, .prefill = plain_prefill, .denoise = plain_denoise, .commit = plain_commit};
        mb_sampling sampling = {.sampler = &sampler,
                                .family = config->family,
                                .block = config->block,
                                .sub_block = config->sub_block,
                                .mask_id = config->mask_id,
                                .max_new_tokens = 64};
        for (int32_t s = 0; s < config->stop_count; s++)
            sampling.stop_ids[sampling.stop_count++] = config->stop_ids[s];
        assert_int_equal(mb_sampling_run(&sampling, &network, g.ids, n, &err), MB_OK);
        assert_int_equal(result.count, sampling.count - sampling.prompt);
        assert_true(result.count > 0);
        for (size_t t = 0; t < result.count; t++)
            assert_int_equal(result.ids[t], sampling.tokens[(size_t)sampling.prompt + t]);
        assert_int_equal(result.denoise_forwards, sampling.denoise_forwards);
        assert_int_equal(result.commit_forwards, sampling.commit_forwards);
        mb_sampling_free(&sampling);
        mb_decode_result_free(&result);
        mb_attender_close(attender);
        mb_session_close(session);
        free(g.data);
        close_model(&o);
    }
}

/* ---- decoding ---- */

static char *decode_text(const opened *o, const mb_decode_result *result)
{
    char *text = NULL;
    mb_error err = {0};
    size_t length = 0;
    assert_int_equal(
        mb_tokenizer_decode(mb_model_tokenizer(o->model), result->ids, result->count, true, &text, &length, &err),
        MB_OK);
    return text;
}

static void finds_the_needle(void **state)
{
    (void)state;
    opened o = open_model("models/tiny", MB_BF16, 2);
    size_t n = 0;
    int32_t *ids = needle_prompt(&o, "silver-lake", "7340912", 60, &n);
    mb_session *session = open_session(&o, 1, 1280);
    mb_attender *attender = open_attender(session, &dense_method, NULL);
    mb_error err = {0};
    double us = 0;
    assert_true(n > 700 && n < 1200);
    assert_int_equal(mb_session_prefill(session, 0, ids, n, &us, &err), MB_OK);
    assert_true(us > 0);
    for (int i = 0; i < 3; i++) {
        mb_sampler sampler;
        mb_sampler_default(mb_model_config_of(o.model), &sampler);
        if (i > 0)
            sampler = fixed_sampler(i == 1 ? 8 : 32);
        mb_decode_request request = {
            .sampler = &sampler, .max_new_tokens = 24, .extra_stop_id = -1, .time_forwards = true};
        mb_decode_result result;
        if (mb_decode(session, attender, &request, &result, &err) != MB_OK)
            fail_msg("%s", err.text);
        char *text = decode_text(&o, &result);
        print_message("%zu tokens of context, %d forwards: \"%s\"\n", n, result.denoise_forwards, text);
        assert_non_null(strstr(text, "7340912"));
        assert_true(result.stopped);
        assert_true(result.engaged == 0 && result.work == 1 && result.work_select == 0);
        assert_int_equal(result.first_count, result.blocks);
        assert_int_equal(result.first_count + result.later_count, result.denoise_forwards);
        assert_int_equal(result.commit_count, result.commit_forwards);
        free(text);
        mb_decode_result_free(&result);
    }
    mb_attender_close(attender);
    mb_session_close(session);
    free(ids);
    close_model(&o);
}

struct trace_log {
    mb_text text;
};

static void write_trace(void *user, const mb_trace_step *step)
{
    struct trace_log *log = user;
    mb_text_printf(&log->text, "%c%d,%d,%d@%d+%d/%d:", step->kind, step->block, step->step, step->masked_before,
                   step->prefix, step->row_offset, step->rows);
    for (int32_t i = 0; i < step->count; i++)
        mb_text_printf(&log->text, " %d=%d", step->positions[i], step->tokens[i]);
    mb_text_puts(&log->text, "\n");
}

/* Twice the same, with one thread and with two; the snapshot survives each decoding, with compat_prompt_bug
 * too. */
static void decodes_alike(void **state)
{
    char *traces[4] = {0};
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        opened o = open_model("models/tiny", MB_BF16, threads);
        size_t n = 0;
        int32_t *ids = needle_prompt(&o, "amber-hill", "55012", 10, &n);
        mb_session *session = open_session(&o, 1, 512);
        mb_attender *attender = open_attender(session, &dense_method, NULL);
        mb_sampler sampler = fixed_sampler(6);
        mb_error err = {0};
        assert_int_equal(mb_session_prefill(session, 0, ids, n, NULL, &err), MB_OK);
        for (int i = 0; i < 2; i++) {
            struct trace_log log = {{0}};
            mb_decode_request request = {.sampler = &sampler,
                                         .max_new_tokens = 40,
                                         .extra_stop_id = -1,
                                         .trace = write_trace,
                                         .user = &log};
            mb_decode_result result;
            assert_int_equal(mb_decode(session, attender, &request, &result, &err), MB_OK);
            assert_int_equal(session->prefix[0], (int)n / 32 * 32);
            traces[2 * (threads - 1) + i] = mb_text_take(&log.text);
            mb_decode_result_free(&result);
        }
        mb_attender_close(attender);
        mb_session_close(session);
        free(ids);
        close_model(&o);
    }
    for (int i = 1; i < 4; i++)
        assert_string_equal(traces[i], traces[0]);
    for (int i = 0; i < 4; i++)
        free(traces[i]);
}

static void forgotten_prompt_comes_back(void **state)
{
    (void)state;
    opened o = open_fixture("qwen2_tied", MB_F32);
    struct golden g = read_golden("qwen2_tied");
    mb_session *session = open_session(&o, 1, 192);
    mb_attender *attender = open_attender(session, &dense_method, NULL);
    mb_sampler sampler;
    mb_sampler_default(mb_model_config_of(o.model), &sampler);
    sampler.ignore_stop = true;
    sampler.threshold = 0.9;
    char *traces[3];
    mb_error err = {0};
    assert_int_equal(mb_session_prefill(session, 0, g.ids, 32, NULL, &err), MB_OK);
    for (int i = 0; i < 3; i++) {
        struct trace_log log = {{0}};
        sampler.compat_prompt_bug = i == 1;
        sampler.block_cache = true;
        mb_decode_request request = {
            .sampler = &sampler, .max_new_tokens = 64, .extra_stop_id = -1, .trace = write_trace, .user = &log};
        mb_decode_result result;
        if (mb_decode(session, attender, &request, &result, &err) != MB_OK)
            fail_msg("%s", err.text);
        assert_int_equal(result.count, 65);
        traces[i] = mb_text_take(&log.text);
        mb_decode_result_free(&result);
    }
    assert_string_equal(traces[0], traces[2]);
    assert_string_not_equal(traces[0], traces[1]);
    assert_non_null(strstr(traces[0], "\ns"));
    for (int i = 0; i < 3; i++)
        free(traces[i]);
    mb_attender_close(attender);
    mb_session_close(session);
    free(g.data);
    close_model(&o);
}

/* Forced: run once, then force the run's own tokens: everything agrees and the result is the same. */
static void forced_agrees_with_itself(void **state)
{
    (void)state;
    opened o = open_model("models/tiny", MB_BF16, 2);
    size_t n = 0;
    int32_t *ids = needle_prompt(&o, "amber-hill", "55012", 10, &n);
    mb_session *session = open_session(&o, 1, 512);
    mb_attender *attender = open_attender(session, &dense_method, NULL);
    mb_sampler sampler = fixed_sampler(6);
    mb_error err = {0};
    mb_decode_request request = {.sampler = &sampler, .max_new_tokens = 40, .extra_stop_id = -1};
    mb_decode_result first, second;
    assert_int_equal(mb_session_prefill(session, 0, ids, n, NULL, &err), MB_OK);
    assert_int_equal(mb_decode(session, attender, &request, &first, &err), MB_OK);
    first.ids[1] = (first.ids[1] + 1) % 2000;
    request.forced = first.ids;
    request.forced_count = first.count;
    assert_int_equal(mb_decode(session, attender, &request, &second, &err), MB_OK);
    assert_int_equal(second.compared, (int)first.count);
    assert_int_equal(second.agree, (int)first.count - 1);
    assert_int_equal(second.count, first.count);
    assert_memory_equal(second.ids, first.ids, first.count * sizeof *first.ids);
    mb_decode_result_free(&first);
    mb_decode_result_free(&second);
    mb_attender_close(attender);
    mb_session_close(session);
    free(ids);
    close_model(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_tiny),
        cmocka_unit_test(golden_qwen2),
        cmocka_unit_test(prefill_equals_commits),
        cmocka_unit_test(sub_block_rows),
        cmocka_unit_test(decode_equals_recomputing),
        cmocka_unit_test(finds_the_needle),
        cmocka_unit_test(decodes_alike),
        cmocka_unit_test(forgotten_prompt_comes_back),
        cmocka_unit_test(forced_agrees_with_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
