/*
 * test_editing.c - what a step reveals beside the two confidence rules: sequential and entropy_bounded, LLaDA2's
 * early stop, and the edits of LLaDA2.1. The stub of this file predicts by what stands in the block, so that
 * predictions change while it fills; each rule is written down a second time here, from its description, over the
 * whole text. At the end a real network: the cache holds the edited tokens' keys, and drawn texts repeat on one
 * and two threads.
 */
#include "tests/model/engine_fixture.h"
#include "tests/model/stub_network.h"

enum { B = 8, PROMPT = 13, NEW = 30 };

/* ---- a network that changes its mind ---- */

struct moody {
    int32_t calls, cached, commits;
    const int32_t *tokens; /* of the last forward */
    int32_t text[256], text_count;
};

/* Of position g, given the block as it is: a token and its probability. */
static void predict(const int32_t *block, int32_t g, int32_t *id, float *probability)
{
    uint32_t mix = (uint32_t)g * 2654435761u;
    for (int32_t i = 0; i < B; i++)
        mix = (mix ^ (uint32_t)block[i]) * 16777619u + (uint32_t)i;
    mix ^= mix >> 13;
    *id = (int32_t)((uint32_t)(g * 5) + mix % 3) % 50;
    *probability = 0.05f + 0.9f * (float)(mix >> 8 & 1023) / 1023.0f;
}

static float logit_of(int32_t v, int32_t id, float probability)
{
    return v == id ? logf(probability) : logf((1 - probability) / (VOCAB - 1));
}

static int moody_prefill(void *self, const int32_t *ids, int32_t n, int32_t *next, mb_error *err)
{
    struct moody *m = self;
    (void)ids, (void)err;
    m->cached = n;
    *next = 0;
    return MB_OK;
}

static int moody_denoise(void *self, int32_t step, const int32_t *tokens, int32_t rows, int32_t row_offset,
                         int32_t *ids, float *probability, mb_error *err)
{
    struct moody *m = self;
    (void)step, (void)err;
    assert_int_equal(rows, B);
    assert_int_equal(row_offset, 0);
    m->calls++;
    m->tokens = tokens;
    for (int32_t r = 0; r < rows; r++)
        predict(tokens, m->cached + r, &ids[r], &probability[r]);
    return MB_OK;
}

static int moody_logits(void *self, int32_t row, float *values, mb_error *err)
{
    const struct moody *m = self;
    int32_t id;
    float probability;
    (void)err;
    predict(m->tokens, m->cached + row, &id, &probability);
    for (int32_t v = 0; v < VOCAB; v++)
        values[v] = logit_of(v, id, probability);
    return MB_OK;
}

static int moody_commit(void *self, const int32_t *tokens, int32_t *next, mb_error *err)
{
    struct moody *m = self;
    (void)err;
    assert_int_equal(count_masks(tokens, B), 0);
    m->cached += B;
    m->commits++;
    *next = 0;
    return MB_OK;
}

/* Decodes and checks that a text of this many tokens came out, and how many forwards it took. */
static void decode_moody(mb_family family, const mb_sampler *sampler, int32_t stop, mb_sampling *sampling,
                         struct moody *m)
{
    int32_t prompt[PROMPT];
    mb_error err = {0};
    memset(m, 0, sizeof *m);
    for (int32_t i = 0; i < PROMPT; i++)
        prompt[i] = (3 * i + 1) % 50;
    *sampling = (mb_sampling){.sampler = sampler,
                              .family = family,
                              .block = B,
                              .sub_block = B,
                              .mask_id = MASK,
                              .vocab = VOCAB,
                              .stop_ids = {stop},
                              .stop_count = 1,
                              .max_new_tokens = NEW};
    mb_network network = {.self = m,
                          .prefill = moody_prefill,
                          .denoise = moody_denoise,
                          .logits = moody_logits,
                          .commit = moody_commit};
    if (mb_sampling_run(sampling, &network, prompt, PROMPT, &err) != MB_OK)
        fail_msg("%s", err.text);
}

/* ---- the rules a second time ---- */

struct second {
    int32_t text[128], count, forwards, edits;
};

/* How many of the masked slots a strategy reveals, and which: marks them in chosen. */
static void reveal_second(const mb_sampler *s, const int32_t *block, int32_t at, const float *p, bool *chosen)
{
    double entropy[B], sum = 0;
    int32_t left = 0, above = 0;
    for (int32_t i = 0; i < B; i++) {
        float q = (1 - p[i]) / (VOCAB - 1);
        entropy[i] = -(double)p[i] * log((double)p[i]) - (VOCAB - 1) * (double)q * log((double)q);
        chosen[i] = false;
        left += block[i] == MASK;
        above += block[i] == MASK && p[i] > (float)s->threshold;
    }
    (void)at;
    if (s->remasking == MB_REMASK_DYNAMIC && above > 0) {
        for (int32_t i = 0; i < B; i++)
            chosen[i] = block[i] == MASK && p[i] > (float)s->threshold;
        return;
    }
    for (int32_t n = 0; n < left; n++) {
        int32_t best = -1;
        for (int32_t i = 0; i < B; i++) {
            if (block[i] != MASK || chosen[i])
                continue;
            bool better = best < 0 || (s->remasking == MB_REMASK_ENTROPY      ? entropy[i] < entropy[best]
                                       : s->remasking == MB_REMASK_SEQUENTIAL ? false
                                                                              : p[i] > p[best]);
            best = better ? i : best;
        }
        sum += entropy[best];
        bool more = s->remasking == MB_REMASK_ENTROPY ? n == 0 || sum < s->eb_threshold : n < B / s->steps;
        if (!more)
            return;
        chosen[best] = true;
    }
}

/* SDAR's blocks, with LLaDA2.1's edits where edit is at most 1. */
static void decode_second(const mb_sampler *s, double edit, struct second *o)
{
    memset(o, 0, sizeof *o);
    o->count = (PROMPT + NEW + B - 1) / B * B;
    for (int32_t i = 0; i < o->count; i++)
        o->text[i] = i < PROMPT ? (3 * i + 1) % 50 : MASK;
    for (int32_t at = PROMPT / B * B; at < o->count; at += B) {
        int32_t *block = o->text + at, post = 0;
        for (;;) {
            int32_t masks = count_masks(block, B), ids[B], changed = 0;
            float p[B];
            bool chosen[B];
            if (masks == 0 && (edit > 1 || ++post > s->max_post_steps))
                break;
            for (int32_t i = 0; i < B; i++)
                predict(block, at + i, &ids[i], &p[i]);
            o->forwards++;
            reveal_second(s, block, at, p, chosen);
            for (int32_t i = 0; i < B; i++) {
                bool edited =
                    edit <= 1 && block[i] != MASK && at + i >= PROMPT && ids[i] != block[i] && (double)p[i] > edit;
                changed += edited;
                if (edited || chosen[i])
                    block[i] = ids[i];
            }
            o->edits += changed;
            if (masks == 0 && changed == 0)
                break;
        }
    }
}

static mb_sampler rule(mb_remasking remasking)
{
    return (mb_sampler){.threshold = 0.7,
                        .remasking = remasking,
                        .eb_threshold = 5,
                        .steps = 4,
                        .confidence = MB_F32,
                        .editing_threshold = 2,
                        .max_post_steps = 16};
}

static void assert_second(const struct second *o, const mb_sampling *sampling, int32_t forwards, int32_t count)
{
    assert_int_equal(sampling->count, count);
    assert_memory_equal(sampling->tokens, o->text, (size_t)count * sizeof *o->text);
    assert_int_equal(forwards, o->forwards);
    assert_int_equal(sampling->edits, o->edits);
}

static void strategies(void **state)
{
    static const mb_remasking all[] = {MB_REMASK_STATIC, MB_REMASK_DYNAMIC, MB_REMASK_SEQUENTIAL,
                                       MB_REMASK_ENTROPY};
    int32_t forwards[4];
    (void)state;
    for (int i = 0; i < 4; i++) {
        mb_sampler s = rule(all[i]);
        mb_sampling sampling;
        struct moody m;
        struct second o;
        s.steps = s.remasking == MB_REMASK_DYNAMIC ? B : 4;
        decode_moody(MB_FAMILY_SDAR, &s, STOP, &sampling, &m);
        decode_second(&s, 2, &o);
        assert_second(&o, &sampling, m.calls, 48);
        forwards[i] = m.calls;
        mb_sampling_free(&sampling);
    }
    assert_int_equal(forwards[2], 2 + 4 * 4); /* three masked slots, then four blocks, two a step */
    /* A bound of zero still reveals one a step; a huge one the whole block. */
    mb_sampler s = rule(MB_REMASK_ENTROPY);
    mb_sampling sampling;
    struct moody m;
    s.eb_threshold = 0;
    decode_moody(MB_FAMILY_SDAR, &s, STOP, &sampling, &m);
    assert_int_equal(m.calls, 3 + 32);
    mb_sampling_free(&sampling);
    s.eb_threshold = 1e4;
    decode_moody(MB_FAMILY_SDAR, &s, STOP, &sampling, &m);
    assert_int_equal(m.calls, 5);
    mb_sampling_free(&sampling);
}

/* Text, number of forwards and of edits; above 1 it is LLaDA2.0's text with 2.0's forwards. */
static void edits(void **state)
{
    static const double thresholds[] = {0.0, 0.3, 0.6, 0.9, 1.0, 1.5, 2.0};
    int32_t plain[64], some = 0;
    (void)state;
    for (int post = 0; post < 2; post++)
        for (size_t i = sizeof thresholds / sizeof thresholds[0]; i-- > 0;) {
            mb_sampler s = rule(MB_REMASK_DYNAMIC);
            mb_sampling sampling;
            struct moody m;
            struct second o;
            s.steps = B;
            s.editing_threshold = thresholds[i];
            s.max_post_steps = post ? 2 : 16;
            decode_moody(MB_FAMILY_LLADA2, &s, STOP, &sampling, &m);
            decode_second(&s, thresholds[i], &o);
            assert_second(&o, &sampling, m.calls, PROMPT + NEW);
            for (int32_t k = 0; k < PROMPT; k++)
                assert_int_equal(sampling.tokens[k], (3 * k + 1) % 50);
            if (thresholds[i] == 2)
                memcpy(plain, sampling.tokens, (PROMPT + NEW) * sizeof *plain);
            if (thresholds[i] >= 1)
                assert_memory_equal(plain, sampling.tokens, (PROMPT + NEW) * sizeof *plain);
            some += sampling.edits;
            mb_sampling_free(&sampling);
        }
    assert_true(some > 20);
}

/* The early stop gives the same text with fewer forwards, and only where the stop token comes with that step. */
static void early_stop(void **state)
{
    int32_t fewer = 0, stopped = 0;
    (void)state;
    for (int32_t run = 0; run < 100; run++) {
        int32_t stop = run / 2;
        mb_sampler s = rule(run % 2 ? MB_REMASK_SEQUENTIAL : MB_REMASK_DYNAMIC);
        mb_sampling late, early;
        struct moody a, b;
        s.steps = B;
        s.threshold = 0.9;
        decode_moody(MB_FAMILY_LLADA2, &s, stop, &late, &a);
        s.eos_early_stop = true;
        decode_moody(MB_FAMILY_LLADA2, &s, stop, &early, &b);
        assert_int_equal(early.count, late.count);
        assert_memory_equal(early.tokens, late.tokens, (size_t)late.count * sizeof *late.tokens);
        assert_true(b.calls <= a.calls && early.stopped == late.stopped);
        fewer += b.calls < a.calls;
        stopped += early.stopped;
        mb_sampling_free(&late);
        mb_sampling_free(&early);
    }
    print_message("%d of 100 stop, %d of them in fewer forwards\n", stopped, fewer);
    assert_true(stopped > 20 && fewer > 10);
}

/* What means nothing to a family, or beside another setting, is refused. */
static void refused(void **state)
{
    static const struct {
        mb_family family;
        mb_sampler change;
        const char *says;
    } cases[] = {
        {MB_FAMILY_FAST_DLLM_V2,
         {.remasking = MB_REMASK_SEQUENTIAL, .editing_threshold = 2},
         "no remasking strategy"},
        {MB_FAMILY_SDAR, {.block_cache = true, .editing_threshold = 2}, "no block cache"},
        {MB_FAMILY_SDAR, {.eos_early_stop = true, .editing_threshold = 2}, "no early stop"},
        {MB_FAMILY_SDAR, {.editing_threshold = 0.5}, "edits no written token"},
        {MB_FAMILY_SDAR, {.editing_threshold = 2, .mode = MB_SAMPLER_SPEED}, "edits no written token"},
        {MB_FAMILY_LLADA2, {.schedule = MB_SCHEDULE_FIXED, .editing_threshold = 0.5}, "choose one"},
        {MB_FAMILY_LLADA2,
         {.schedule = MB_SCHEDULE_FIXED, .remasking = MB_REMASK_ENTROPY, .editing_threshold = 2},
         "choose one"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_model_config config = {.family = cases[i].family, .block = 32};
        mb_error err = {0};
        assert_int_equal(mb_sampler_check(&config, &cases[i].change, &err), MB_E_INPUT);
        assert_non_null(strstr(err.text, cases[i].says));
    }
    /* Every family's presets pass, and a mode has the card's thresholds. */
    for (int f = 0; f < 3; f++)
        for (int fixed = 0; fixed < 2; fixed++)
            for (int edits = 0; edits < 2; edits++) {
                mb_model_config config = {
                    .family = (mb_family)f, .block = 32, .edits = edits && f == MB_FAMILY_LLADA2};
                mb_sampler s;
                mb_error err = {0};
                mb_sampler_preset(&config, fixed ? MB_SCHEDULE_FIXED : MB_SCHEDULE_THRESHOLD, MB_SAMPLER_PLAIN,
                                  &s);
                assert_int_equal(mb_sampler_check(&config, &s, &err), MB_OK);
                assert_true(s.editing_threshold == (config.edits && !fixed ? 0.9 : 2.0));
            }
    mb_model_config config = {.family = MB_FAMILY_LLADA2, .block = 32};
    mb_sampler s;
    mb_sampler_preset(&config, MB_SCHEDULE_THRESHOLD, MB_SAMPLER_QUALITY, &s);
    assert_true(s.threshold == 0.7 && s.editing_threshold == 0.5 && s.max_post_steps == 16);
    mb_sampler_preset(&config, MB_SCHEDULE_THRESHOLD, MB_SAMPLER_SPEED, &s);
    assert_true(s.threshold == 0.5 && s.editing_threshold == 0 && s.max_post_steps == 16);
}

/* ---- a real network ---- */

static mb_decode_result decode_real(mb_session *session, const mb_sampler *sampler, const int32_t *prompt)
{
    mb_error err = {0};
    mb_decode_result result;
    mb_decode_request request = {.sampler = sampler, .max_new_tokens = 96, .extra_stop_id = -1, .seed = 5};
    mb_attender *attender = open_attender(session, &dense_method, NULL);
    assert_int_equal(mb_session_prefill(session, 0, prompt, 45, NULL, &err), MB_OK);
    if (mb_decode(session, attender, &request, &result, &err) != MB_OK)
        fail_msg("%s", err.text);
    mb_attender_close(attender);
    return result;
}

/* Slots behind the committed ones belong to nobody; up to there the cache is that of the final text. */
static void cache_follows_edits(void **state)
{
    opened o = open_fixture("llada2", MB_F32);
    mb_session *session = open_session(&o, 1, 192), *fresh = open_session(&o, 1, 192);
    const mb_model_config *config = mb_model_config_of(o.model);
    mb_sampler sampler;
    mb_error err = {0};
    int32_t text[192];
    double worst = 0;
    (void)state;
    mb_sampler_preset(config, MB_SCHEDULE_THRESHOLD, MB_SAMPLER_SPEED, &sampler);
    sampler.threshold = 0;
    sampler.ignore_stop = true;
    for (int32_t i = 0; i < 45; i++)
        text[i] = (7 * i + 3) % 200;
    mb_decode_result result = decode_real(session, &sampler, text);
    assert_true(result.edits > 0);
    assert_int_equal(result.count, 96);
    memcpy(text + 45, result.ids, result.count * sizeof *text);
    int32_t committed = 32 * (1 + result.commit_forwards);
    assert_true(committed >= 96);
    assert_int_equal(mb_session_prefill(fresh, 0, text, (size_t)committed, NULL, &err), MB_OK);
    for (int32_t l = 0; l < config->layers; l++)
        for (int32_t h = 0; h < config->kv_heads; h++)
            for (int32_t j = 0; j < committed * config->head_dim; j++) {
                size_t at = (size_t)h * 192 * (size_t)config->head_dim + (size_t)j;
                const float *a = session->kv[l].k, *b = fresh->kv[l].k, *c = session->kv[l].v, *d = fresh->kv[l].v;
                worst =
                    fmax(worst, fmax(fabs((double)a[at] - (double)b[at]), fabs((double)c[at] - (double)d[at])));
            }
    print_message("%d edits, %d forwards: keys and values within %.1e of a prefill of the text\n", result.edits,
                  result.denoise_forwards, worst);
    assert_true(worst < 1e-4);
    mb_decode_result_free(&result);
    mb_session_close(fresh);
    mb_session_close(session);
    close_model(&o);
}

static void threads_draw_the_same(void **state)
{
    int32_t text[3][96], prompt[45];
    (void)state;
    for (int32_t i = 0; i < 45; i++)
        prompt[i] = (7 * i + 3) % 200;
    for (int run = 0; run < 3; run++) {
        opened o = open_fixture("sdar_moe", MB_F32);
        opened t = open_model(o.folder, MB_F32, run == 1 ? 1 : 2);
        mb_session *session = open_session(&t, 1, 192);
        mb_sampler sampler;
        mb_sampler_default(mb_model_config_of(t.model), &sampler);
        sampler.temperature = run == 2 ? 0 : 1.2;
        sampler.top_p = 0.95;
        sampler.ignore_stop = true;
        mb_decode_result result = decode_real(session, &sampler, prompt);
        assert_true(result.count >= 96);
        memcpy(text[run], result.ids, sizeof text[run]);
        mb_decode_result_free(&result);
        mb_session_close(session);
        close_model(&t);
        close_model(&o);
    }
    assert_memory_equal(text[0], text[1], sizeof text[0]);
    assert_int_not_equal(memcmp(text[0], text[2], sizeof text[0]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strategies),          cmocka_unit_test(edits),
        cmocka_unit_test(early_stop),          cmocka_unit_test(refused),
        cmocka_unit_test(cache_follows_edits), cmocka_unit_test(threads_draw_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
