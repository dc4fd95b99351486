/*
 * latency.c - fixed work for timing, and the logits of a whole text.
 *
 * Fixed work: every sequence of the batch denoises blocks of a given number of steps, whatever the tokens say; the
 * cache is cut back after each block, so that the context stays as long as it is. Slots are revealed in a fixed
 * order with tokens drawn from a running number: no two blocks of a method see the same input, so it cannot gain
 * by remembering an output, and every method's blocks see the same ones.
 */
#include "model/engine/engine.h"
#include "model/engine/team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct work {
    mb_session *session;
    mb_attender *attender;
    mb_decode_result *result;
    int32_t *tokens, *ids; /* [batch][block] */
    float *probability;
    uint8_t *open; /* [batch][block] of a canvas: 1 = not revealed yet; NULL where masks say it */
    mb_work read;
    double watched_us; /* spent in watchers: no part of the work */
};

static int append_time(double **list, size_t *count, double us, mb_error *err)
{
    double *grown = realloc(*list, (*count + 1) * sizeof *grown);
    if (!grown)
        return mb_no_memory(err, "forward times");
    *list = grown;
    grown[(*count)++] = us;
    return MB_OK;
}

/* The token that a slot shows once it is revealed, never [MASK]. What a forward predicted has no part in it:
 * methods would go on with different texts and, in a mixture of experts, be charged for different experts. */
static int32_t drawn(const mb_session *session, int32_t sequence, int32_t slot)
{
    uint64_t vocab = (uint64_t)session->config->vocab, place = (uint64_t)(sequence * session->block + slot);
    mb_random random = mb_random_seed(session->rotation * 0x9e3779b97f4a7c15u + place);
    int32_t id = (int32_t)mb_random_below(&random, vocab);
    return id == session->config->mask_id ? (int32_t)(((uint64_t)id + 1) % vocab) : id;
}

/* After step `step` (1 ..) of `steps`, slots below block*step/steps are known; slot 0 is known from the start. */
static void reveal(struct work *w, int32_t step, int32_t steps)
{
    mb_session *session = w->session;
    int32_t block = session->block;
    int32_t known = (int32_t)((int64_t)block * step / steps);
    for (int32_t b = 0; b < session->batch; b++)
        for (int32_t i = 0; i < known; i++) {
            int32_t *token = &w->tokens[b * block + i];
            if (w->open)
                w->open[b * block + i] = 0;
            if (*token == session->config->mask_id)
                *token = drawn(session, b, i);
        }
}

static mb_forward_run make_run(const struct work *w, mb_phase phase, int32_t block, int32_t step)
{
    int32_t longest = 0;
    for (int32_t b = 0; b < w->session->batch; b++)
        longest = w->session->prefix[b] > longest ? w->session->prefix[b] : longest;
    return (mb_forward_run){.attender = w->attender,
                            .phase = phase,
                            .block = block,
                            .step = step,
                            .batch = w->session->batch,
                            .rows = w->session->block,
                            .max_prefix = mb_session_bound(w->session, longest),
                            .open = phase == MB_PHASE_COMMIT ? NULL : w->open,
                            .pre_rope = w->attender->method.caps & MB_CAP_PRE_ROPE,
                            .confidence = phase == MB_PHASE_COMMIT ? MB_F32 : MB_BF16};
}

static int block_hook(struct work *w, mb_hook hook, int32_t block, mb_error *err)
{
    mb_forward_run run =
        make_run(w, hook == MB_HOOK_BLOCK_BEGIN ? MB_PHASE_FIRST_STEP : MB_PHASE_COMMIT, block, 0);
    run.masked_rows = hook == MB_HOOK_BLOCK_BEGIN ? w->session->block - 1 : 0;
    return mb_forward_hook(w->session, &run, hook, -1, err);
}

/* FNV-1a over the predicted tokens: equal for two runs on equal inputs, whatever launched their kernels. */
static void digest_tokens(struct work *w)
{
    size_t n = (size_t)w->session->batch * (size_t)w->session->block;
    for (size_t i = 0; i < n; i++)
        w->result->digest = (w->result->digest ^ (uint64_t)(uint32_t)w->ids[i]) * 0x100000001b3u;
}

static void watch(struct work *w, const mb_forward_run *run, double us)
{
    const mb_measure *measure = &w->session->measure;
    mb_forward_report report = {
        .phase = run->phase, .block = run->block, .step = run->step, .us = us, .replayed = run->replayed};
    if (!measure->forward)
        return;
    uint64_t start = mb_clock_ns();
    measure->forward(measure->user, &report);
    w->watched_us += (double)(mb_clock_ns() - start) * 1e-3;
}

static int forward(struct work *w, mb_phase phase, int32_t block, int32_t step, mb_error *err)
{
    mb_forward_run run = make_run(w, phase, block, step);
    mb_decode_result *result = w->result;
    double us = 0;
    int rc = mb_step(w->session, &run, w->tokens, w->ids, w->probability, &us, err);
    if (rc != MB_OK)
        return rc;
    digest_tokens(w);
    watch(w, &run, us);
    bool timed = !isnan(us);
    if (phase == MB_PHASE_COMMIT)
        return !timed ? MB_OK : append_time(&result->commit_us, &result->commit_count, us, err);
    mb_work_add(&w->read, w->session, &run);
    if (!timed)
        return MB_OK;
    if (phase == MB_PHASE_FIRST_STEP)
        return append_time(&result->first_us, &result->first_count, us, err);
    return append_time(&result->later_us, &result->later_count, us, err);
}

static int one_block(struct work *w, int32_t block, int32_t steps, const volatile int *stop, mb_error *err)
{
    mb_session *session = w->session;
    session->rotation++;
    for (int32_t b = 0; b < session->batch; b++)
        for (int32_t i = 0; i < session->block; i++)
            w->tokens[b * session->block + i] =
                i == 0 || w->open ? drawn(session, b, i) : session->config->mask_id;
    session->temperature = (float)session->config->canvas.hot;
    for (int32_t i = 0; w->open && i < session->batch * session->block; i++)
        w->open[i] = i % session->block != 0;
    int rc = block_hook(w, MB_HOOK_BLOCK_BEGIN, block, err);
    for (int32_t step = 1; step <= steps; step++) {
        if (rc == MB_OK && stop && *stop)
            rc = mb_fail(err, MB_E_STOP, "interrupted");
        if ((rc = mb_session_agree(session, rc, NULL, 0, err)) != MB_OK)
            return rc;
        rc = forward(w, step == 1 ? MB_PHASE_FIRST_STEP : MB_PHASE_LATER_STEP, block, step, err);
        if (rc == MB_OK)
            reveal(w, step, steps);
    }
    if (rc == MB_OK)
        rc = forward(w, MB_PHASE_COMMIT, block, 0, err);
    if (rc == MB_OK)
        rc = block_hook(w, MB_HOOK_BLOCK_END, block, err);
    return mb_session_agree(session, rc, NULL, 0, err);
}

/* The method meets the snapshot, and no block's clock runs yet. */
static int begin(struct work *w, mb_error *err)
{
    mb_session *session = w->session;
    size_t slots = (size_t)session->batch * (size_t)session->block;
    w->tokens = malloc(slots * sizeof *w->tokens);
    w->ids = malloc(slots * sizeof *w->ids);
    w->probability = malloc(slots * sizeof *w->probability);
    const bool canvas = session->config->canvas.steps > 0;
    w->open = canvas ? malloc(slots) : NULL;
    if (!w->tokens || !w->ids || !w->probability || (canvas && !w->open))
        return mb_no_memory(err, "%zu tokens", slots);
    int rc = mb_work_begin(session, err);
    if (rc != MB_OK)
        return rc;
    mb_forward_run run = make_run(w, MB_PHASE_PREFILL, 0, 0);
    if ((rc = mb_attender_begin(w->attender, &run, err)) != MB_OK)
        return rc;
    /* What begin() enqueued (an index over the whole prefix) ends before the clock of the first block starts. */
    rc = session->kernels->sync(session->device);
    return rc == MB_OK ? rc : mb_session_failed(session, rc, "waiting for the method's set-up", err);
}

int mb_decode_fixed_work(mb_session *session, mb_attender *attender, int32_t blocks, int32_t steps,
                         const volatile int *stop, mb_decode_result *result, mb_error *err)
{
    if (mb_team_leads(session->team))
        return mb_team_fixed_work(session, attender, blocks, steps, stop, result, err);
    struct work w = {.session = session, .attender = attender, .result = result};
    if (steps < 1 || steps > session->block)
        return mb_fail(err, MB_E_INPUT, "%d steps per block of %d tokens: use 1 to %d", steps, session->block,
                       session->block);
    int rc = mb_session_agree(session, begin(&w, err), NULL, 0, err);
    if (rc != MB_OK)
        goto out;
    result->digest = 0xcbf29ce484222325u;
    uint64_t start = mb_clock_ns();
    for (int32_t b = 0; b < blocks && rc == MB_OK; b++) {
        rc = one_block(&w, b, steps, stop, err);
        /* The commit left its keys behind the prefix and the prefix is not moved: that is the cut. */
        if (rc == MB_OK) {
            result->blocks++;
            result->denoise_forwards += steps;
            result->commit_forwards++;
            result->forwards_histogram[steps < MB_FORWARD_HISTOGRAM ? steps : MB_FORWARD_HISTOGRAM - 1]++;
        }
    }
    result->decode_us += (double)(mb_clock_ns() - start) * 1e-3 - w.watched_us;
    if (rc == MB_OK)
        rc = mb_work_read(&w.read, session, result, err);
    if (rc == MB_OK)
        rc = mb_attender_report(attender, result->counters, 32, err);
    rc = mb_session_agree(session, rc, NULL, 0, err);
out:
    free(w.tokens);
    free(w.ids);
    free(w.probability);
    free(w.open);
    return rc;
}

int mb_model_logits(mb_model *model, const int32_t *ids, size_t n, float **logits, mb_error *err)
{
    if (mb_team_leads(model->team))
        return mb_team_logits(model, ids, n, logits, err);
    mb_session *session = NULL;
    size_t block = (size_t)model->config.block, vocab = (size_t)model->config.vocab;
    *logits = NULL;
    if (n == 0 || n > (size_t)model->config.positions)
        return mb_fail(err, MB_E_INPUT, "logits of %zu tokens: use 1 to %d", n, model->config.positions);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= model->config.vocab)
            return mb_fail(err, MB_E_INPUT, "token %zu is %d, the vocabulary has %d", i, ids[i],
                           model->config.vocab);
    mb_session_request request = {.batch = 1, .capacity = (int32_t)(n > block ? n : block)};
    float *all = NULL;
    int rc = mb_session_open(&session, model, &request, err);
    if (rc == MB_OK && !(all = malloc(n * vocab * sizeof *all)))
        rc = mb_no_memory(err, "the logits of %zu tokens", n);
    if (model->comm)
        rc = mb_comm_agree(model->comm, rc, NULL, 0, err);
    if (rc == MB_OK)
        rc = mb_session_prefill_rows(session, 0, ids, 0, (int32_t)n, all, NULL, err);
    if (rc == MB_OK) {
        *logits = all;
        all = NULL;
    }
    free(all);
    mb_session_close(session);
    return rc;
}
