/*
 * decode.c - decoding one sample from the snapshot: the sampler's network over a session and an attender, timing,
 * work accounting, the shadow pass, and cutting the cache back afterwards.
 *
 * Order of the method's hooks: request_begin, kv_added (prefill, every layer), then for each block block_begin;
 * for each step step_begin, select/observe/attend per layer, step_end; the commit forward (select is asked too,
 * then kv_added per layer); block_end. report and report_maps come last.
 */
#include "model/engine/engine.h"
#include "model/engine/team.h"

#include "model/checkpoint/convert.h"

#include <stdlib.h>
#include <string.h>

/* A growing list of forward times. */
struct times {
    double **us;
    size_t *count, capacity;
};

struct decoder {
    mb_session *session;
    mb_attender *attender;
    mb_shadow *shadows;
    size_t shadow_count;
    mb_ranking ranking;
    const mb_decode_request *request;
    mb_decode_result *result;
    struct times first, later, commit;
    int32_t block;
    char (*cache)[MB_HASH_CAP]; /* hashes of the prompt's keys and values, one a layer; NULL = nobody looks */
    bool forgotten;             /* compat_prompt_bug threw the snapshot away */
    mb_work work;
    uint8_t open[256]; /* of a canvas: 1 = a slot is not accepted yet */
    float *probability;
};

static int append_time(struct times *times, double us, mb_error *err)
{
    if (*times->count == times->capacity) {
        size_t capacity = times->capacity ? 2 * times->capacity : 64;
        double *list = realloc(*times->us, capacity * sizeof *list);
        if (!list)
            return mb_no_memory(err, "%zu forward times", capacity);
        *times->us = list;
        times->capacity = capacity;
    }
    (*times->us)[(*times->count)++] = us;
    return MB_OK;
}

static bool wants_pre_rope(const struct decoder *d)
{
    uint64_t caps = d->attender->method.caps;
    for (size_t i = 0; i < d->shadow_count; i++)
        caps |= d->shadows[i].attender->method.caps;
    return caps & MB_CAP_PRE_ROPE;
}

/* Whether somebody outside watches a method: third-party code, of which every hook is checked. */
static bool is_watched(const struct decoder *d)
{
    bool watched = d->attender->note;
    for (size_t i = 0; i < d->shadow_count; i++)
        watched = watched || d->shadows[i].attender->note;
    return watched;
}

/* Forwards whose selections are looked at: all where that costs a copy in memory or the method is watched, the
 * first of a sample where it makes the host wait for a GPU, none that are timed. */
static bool is_checked(const struct decoder *d, int32_t step)
{
    if (d->request->time_forwards)
        return false;
    return !d->session->kernels->capture_begin || (d->block == 0 && step <= 2) || is_watched(d);
}

static mb_forward_run make_run(struct decoder *d, mb_phase phase, int32_t step)
{
    return (mb_forward_run){.attender = d->attender,
                            .shadows = d->shadows,
                            .shadow_count = d->shadow_count,
                            .ranking = &d->ranking,
                            .request = d->request->request,
                            .phase = phase,
                            .block = d->block,
                            .step = step,
                            .batch = 1,
                            .rows = d->session->block,
                            .max_prefix = mb_session_bound(d->session, d->session->prefix[0]),
                            .open =
                                d->session->config->canvas.steps > 0 && phase != MB_PHASE_COMMIT ? d->open : NULL,
                            .pre_rope = wants_pre_rope(d),
                            .kept = phase == MB_PHASE_COMMIT || d->request->sampler->block_cache,
                            .checked = is_checked(d, step),
                            .watcher = d->request->selected && phase != MB_PHASE_COMMIT ? d->request : NULL,
                            .confidence = phase == MB_PHASE_COMMIT ? MB_F32 : d->request->sampler->confidence};
}

static int check_stop(const struct decoder *d, mb_error *err)
{
    return d->request->stop && *d->request->stop ? mb_fail(err, MB_E_STOP, "interrupted") : MB_OK;
}

/* ---- the sampler's network ---- */

static int network_prefill(void *self, const int32_t *ids, int32_t n, int32_t *next, mb_error *err)
{
    struct decoder *d = self;
    (void)ids;
    if (n != d->session->prefix[0])
        return mb_fail(err, MB_E_BUG, "the snapshot holds %d tokens, the sampler expects %d",
                       d->session->prefix[0], n);
    *next = d->session->seed[0];
    return MB_OK;
}

static int network_forget(void *self, mb_error *err)
{
    struct decoder *d = self;
    d->forgotten = true;
    d->session->prefix[0] = 0;
    return mb_session_send_prefix(d->session, err);
}

static int block_hook(struct decoder *d, mb_hook hook, const int32_t *tokens, mb_error *err)
{
    mb_forward_run run = make_run(d, hook == MB_HOOK_BLOCK_BEGIN ? MB_PHASE_FIRST_STEP : MB_PHASE_COMMIT, 0);
    for (int32_t i = 0; i < d->session->block; i++)
        run.masked_rows += run.open ? run.open[i] : tokens[i] == d->session->config->mask_id;
    return mb_forward_hook(d->session, &run, hook, -1, err);
}

static int network_block_begin(void *self, int32_t block, const int32_t *tokens, mb_error *err)
{
    struct decoder *d = self;
    d->block = block;
    int rc = mb_session_send_prefix(d->session, err);
    if (rc == MB_OK)
        rc = block_hook(d, MB_HOOK_BLOCK_BEGIN, tokens, err);
    return mb_session_agree(d->session, rc, NULL, 0, err);
}

static int network_block_end(void *self, int32_t block, const int32_t *tokens, mb_error *err)
{
    struct decoder *d = self;
    (void)block;
    int rc = mb_session_send_prefix(d->session, err);
    if (rc == MB_OK)
        rc = block_hook(d, MB_HOOK_BLOCK_END, tokens, err);
    return mb_session_agree(d->session, rc, NULL, 0, err);
}

static int network_denoise(void *self, int32_t step, const int32_t *tokens, int32_t rows, int32_t row_offset,
                           int32_t *ids, float *probability, mb_error *err)
{
    struct decoder *d = self;
    mb_forward_run run = make_run(d, step == 1 ? MB_PHASE_FIRST_STEP : MB_PHASE_LATER_STEP, step);
    double us = 0;
    bool timed = d->request->time_forwards;
    int rc = mb_session_agree(d->session, check_stop(d, err), NULL, 0, err);
    if (rc != MB_OK)
        return rc;
    run.rows = rows;
    run.row_offset = row_offset;
    rc = mb_step(d->session, &run, tokens, ids, probability, timed ? &us : NULL, err);
    if (rc != MB_OK)
        return rc;
    mb_work_add(&d->work, d->session, &run);
    return timed ? append_time(step == 1 ? &d->first : &d->later, us, err) : MB_OK;
}

static int network_canvas(void *self, const uint8_t *open, double temperature, mb_error *err)
{
    struct decoder *d = self;
    (void)err;
    memcpy(d->open, open, (size_t)d->session->block);
    d->session->temperature = (float)temperature;
    return MB_OK;
}

static int network_logits(void *self, int32_t row, float *values, mb_error *err)
{
    struct decoder *d = self;
    mb_session *session = d->session;
    size_t vocab = (size_t)session->config->vocab, width = mb_type_size(session->type);
    const char *logits = session->buffer[MB_BUFFER_LOGITS];
    /* Narrower values lie at the end of the same memory: widening from the front never reaches an unread one. */
    char *stored = (char *)values + (sizeof *values - width) * vocab;
    int rc =
        session->kernels->download(session->device, stored, logits + (size_t)row * vocab * width, vocab * width);
    if (rc != MB_OK)
        mb_session_failed(session, rc, "reading the logits of a row", err);
    if ((rc = mb_session_agree(session, rc, stored, vocab * width, err)) != MB_OK)
        return rc;
    if (session->type != MB_F32)
        mb_type_convert(values, MB_F32, stored, session->type, vocab);
    return MB_OK;
}

static int network_commit(void *self, const int32_t *tokens, int32_t *next, mb_error *err)
{
    struct decoder *d = self;
    mb_session *session = d->session;
    mb_forward_run run = make_run(d, MB_PHASE_COMMIT, 0);
    double us = 0;
    bool timed = d->request->time_forwards;
    int32_t ids[256];
    float probability[256];
    int rc = mb_session_agree(session, check_stop(d, err), NULL, 0, err);
    if (rc != MB_OK)
        return rc;
    rc = mb_step(session, &run, tokens, ids, probability, timed ? &us : NULL, err);
    if (rc != MB_OK)
        return rc;
    *next = ids[session->block - 1];
    session->prefix[0] += session->block;
    return timed ? append_time(&d->commit, us, err) : MB_OK;
}

/* ---- the run ---- */

static void fill_sampling(const struct decoder *d, mb_sampling *sampling)
{
    const mb_model_config *config = d->session->config;
    const mb_decode_request *request = d->request;
    *sampling = (mb_sampling){.sampler = request->sampler,
                              .family = config->family,
                              .block = config->block,
                              .sub_block = config->sub_block,
                              .mask_id = config->mask_id,
                              .vocab = config->vocab,
                              .canvas = config->canvas,
                              .draws = request->draws,
                              .seed = request->seed,
                              .max_new_tokens = request->max_new_tokens,
                              .min_new_tokens = request->min_new_tokens,
                              .forced = request->forced,
                              .forced_count = request->forced_count,
                              .trace = request->trace,
                              .user = request->user};
    for (int32_t i = 0; i < config->stop_count && i < 8; i++)
        sampling->stop_ids[sampling->stop_count++] = config->stop_ids[i];
    if (request->extra_stop_id >= 0)
        sampling->stop_ids[sampling->stop_count++] = request->extra_stop_id;
}

/* Keys and values of the prompt before a method that is watched met them. */
static int watch_cache(struct decoder *d, mb_error *err)
{
    return is_watched(d) ? mb_cache_hash(d->session, d->session->prefix[0], &d->cache, err) : MB_OK;
}

/* They are const for a method. Where compat_prompt_bug threw the snapshot away they are not the prompt's. */
static int check_cache(const struct decoder *d, mb_error *err)
{
    const mb_attender *attender = d->shadow_count > 0 ? d->shadows[0].attender : d->attender;
    char(*now)[MB_HASH_CAP] = NULL;
    if (!d->cache || d->forgotten)
        return MB_OK;
    int rc = mb_cache_hash(d->session, d->session->snapshot[0], &now, err);
    for (int32_t l = 0; rc == MB_OK && l < d->session->config->layers; l++)
        if (memcmp(now[l], d->cache[l], sizeof now[l]) != 0)
            rc = mb_fail(err, MB_E_SAMPLE,
                         "method %s wrote into keys or values of the prompt in layer %d: they are not its own",
                         attender->method.name, l);
    free(now);
    return rc;
}

static int turn_begin(mb_attender *attender, mb_shadow *shadow, void *user, mb_error *err)
{
    (void)shadow;
    return mb_attender_begin(attender, user, err);
}

/* Everyone meets the snapshot. */
static int begin(struct decoder *d, mb_error *err)
{
    int rc = mb_work_begin(d->session, err);
    if (rc != MB_OK)
        return rc;
    mb_forward_run run = make_run(d, MB_PHASE_PREFILL, 0);
    return mb_forward_each(&run, turn_begin, &run, err);
}

/* The cache as it was before: the committed length, and its content where compat_prompt_bug wrote over it. */
static int cut_back(struct decoder *d, mb_error *err)
{
    mb_session *session = d->session;
    session->prefix[0] = session->snapshot[0];
    if (!d->forgotten)
        return MB_OK;
    session->prefix[0] = 0;
    int rc = mb_session_prefill_rows(session, 0, session->prompt[0], 0, session->snapshot[0], NULL, NULL, err);
    session->prefix[0] = session->snapshot[0] = rc == MB_OK ? session->snapshot[0] : 0;
    return rc;
}

static int take_result(struct decoder *d, mb_sampling *sampling, mb_error *err)
{
    mb_decode_result *result = d->result;
    size_t fresh = (size_t)(sampling->count - sampling->prompt);
    result->ids = malloc((fresh ? fresh : 1) * sizeof *result->ids);
    if (!result->ids)
        return mb_no_memory(err, "%zu new tokens", fresh);
    if (fresh)
        memcpy(result->ids, sampling->tokens + sampling->prompt, fresh * sizeof *result->ids);
    result->count = fresh;
    result->stopped = sampling->stopped;
    result->blocks = sampling->blocks;
    result->denoise_forwards = sampling->denoise_forwards;
    result->commit_forwards = sampling->commit_forwards;
    memcpy(result->forwards_histogram, sampling->histogram, sizeof result->forwards_histogram);
    result->agree = sampling->agree;
    result->compared = sampling->compared;
    result->edits = sampling->edits;
    return MB_OK;
}

static int check(const struct decoder *d, const mb_sampling *sampling, mb_error *err)
{
    const mb_session *session = d->session;
    size_t prompt = session->prompt_count[0];
    if (!session->prompt[0])
        return mb_fail(err, MB_E_BUG, "decoding needs a prompt: prefill sequence 0 first");
    int64_t length = mb_sampling_length(sampling, (int64_t)prompt);
    if (length > session->capacity)
        return mb_fail(err, MB_E_SAMPLE,
                       "%zu prompt tokens and up to %d new ones need a cache of %lld tokens, this one has %d",
                       prompt, sampling->max_new_tokens, (long long)length, session->capacity);
    return MB_OK;
}

static int decode(struct decoder *d, mb_error *err)
{
    mb_session *session = d->session;
    mb_network network = {.self = d,
                          .prefill = network_prefill,
                          .forget = network_forget,
                          .block_begin = network_block_begin,
                          .block_end = network_block_end,
                          .denoise = network_denoise,
                          .canvas = network_canvas,
                          .logits = network_logits,
                          .commit = network_commit};
    mb_sampling sampling;
    memset(d->result, 0, sizeof *d->result);
    d->first = (struct times){&d->result->first_us, &d->result->first_count, 0};
    d->later = (struct times){&d->result->later_us, &d->result->later_count, 0};
    d->commit = (struct times){&d->result->commit_us, &d->result->commit_count, 0};
    fill_sampling(d, &sampling);
    int rc = check(d, &sampling, err);
    if (rc != MB_OK)
        goto out;
    session->kernels->range_push(session->device, "sample");
    rc = watch_cache(d, err);
    if (rc == MB_OK)
        rc = begin(d, err);
    rc = mb_session_agree(session, rc, NULL, 0, err);
    if (rc == MB_OK) {
        uint64_t start = mb_clock_ns();
        rc = mb_sampling_run(&sampling, &network, session->prompt[0], session->prompt_count[0], err);
        d->result->decode_us = (double)(mb_clock_ns() - start) * 1e-3;
    }
    session->kernels->range_pop(session->device);
    if (rc == MB_OK)
        rc = check_cache(d, err);
    if (rc == MB_OK)
        rc = take_result(d, &sampling, err);
    rc = mb_session_agree(session, rc, NULL, 0, err);
    if (rc == MB_OK)
        rc = mb_work_read(&d->work, session, d->result, err);
    if (rc == MB_OK)
        rc = mb_attender_report(d->attender, d->result->counters, 32, err);
    if (rc == MB_OK)
        rc = mb_attender_report_maps(d->attender, &d->result->maps, &d->result->map_count, err);
    rc = mb_session_agree(session, rc, NULL, 0, err);
    mb_error why = {0};
    int back = cut_back(d, &why);
    if (back != MB_OK && rc == MB_OK)
        rc = mb_fail(err, back, "%s", why.text);
out:
    free(d->cache);
    mb_sampling_free(&sampling);
    if (rc != MB_OK)
        mb_decode_result_free(d->result);
    return rc;
}

int mb_decode(mb_session *session, mb_attender *attender, const mb_decode_request *request,
              mb_decode_result *result, mb_error *err)
{
    if (mb_team_leads(session->team))
        return mb_team_decode(session, attender, request, result, err);
    struct decoder d = {.session = session, .attender = attender, .request = request, .result = result};
    return decode(&d, err);
}

int mb_decode_shadow(mb_session *session, mb_attender *exact, mb_attender *const *shadows, size_t shadow_count,
                     const mb_decode_request *request, mb_decode_result *result, mb_recall *recalls, mb_error *err)
{
    if (mb_team_leads(session->team))
        return mb_team_decode_shadow(session, exact, shadows, shadow_count, request, result, recalls, err);
    struct decoder d = {
        .session = session, .attender = exact, .request = request, .result = result, .shadow_count = shadow_count};
    memset(recalls, 0, shadow_count * sizeof *recalls);
    memset(result, 0, sizeof *result);
    d.shadows = calloc(shadow_count ? shadow_count : 1, sizeof *d.shadows);
    if (!d.shadows)
        return mb_no_memory(err, "%zu shadows", shadow_count);
    for (size_t i = 0; i < shadow_count; i++)
        d.shadows[i].attender = shadows[i];
    int rc = decode(&d, err);
    if (rc == MB_OK && session->comm) {
        mb_forward_run run = make_run(&d, MB_PHASE_COMMIT, 0);
        rc = mb_shadows_settle(session, &run, 0, rc, err);
    }
    for (size_t i = 0; i < shadow_count && rc == MB_OK; i++)
        rc = mb_shadow_result(&d.shadows[i], d.shadows[i].attender->shape.layers, session->model->whole.kv_heads,
                              &recalls[i], err);
    if (rc != MB_OK) {
        for (size_t i = 0; i < shadow_count; i++)
            mb_recall_free(&recalls[i]);
        mb_decode_result_free(result);
    }
    for (size_t i = 0; i < shadow_count; i++)
        mb_shadow_free(&d.shadows[i]);
    free(d.shadows);
    mb_ranking_free(&d.ranking);
    return rc;
}

void mb_decode_result_free(mb_decode_result *result)
{
    free(result->ids);
    free(result->first_us);
    free(result->later_us);
    free(result->commit_us);
    free(result->maps);
    memset(result, 0, sizeof *result);
}
