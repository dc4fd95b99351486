/*
 * latency_request.c - the other regime: a request decoded with the real sampler on a real model, where the number
 * of forwards follows the tokens. Stored: the wall time of the request (phase "request", steps 0); said in an
 * event: forwards x median cost of a forward, and how many forwards the blocks took. Synthetic models have no
 * tokens worth a threshold, so they are left out.
 */
#include "driver/pass/latency.h"

#include "driver/os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_BLOCKS 2
#define REPEATS 3
#define TEMPLATE_TOKENS 64 /* of the chat template and the question */
#define TEXT "datasets/text/haystack.txt"

/* About `context` tokens of embedded text with a request at its end, in the chat template. */
static int make_prompt(const mb_run *run, int32_t context, int32_t **ids, size_t *count, mb_error *err)
{
    const char *text = mb_embedded_find(TEXT, NULL);
    mb_text prompt = {0};
    bool truncated = false;
    if (!text)
        return mb_fail(err, MB_E_BUG, "%s was not compiled in", TEXT);
    while (!prompt.failed && prompt.length < (size_t)context * 6)
        mb_text_puts(&prompt, text);
    mb_text_puts(&prompt, "\n\nSay in one paragraph what the text above is about.");
    mb_prompt_request request = {
        .text = prompt.data, .chat = true, .max_tokens = context - TEMPLATE_TOKENS, .hard_limit = context};
    int rc = prompt.failed ? mb_no_memory(err, "a prompt")
                           : mb_prompt_build(run->model, &request, ids, count, &truncated, err);
    mb_text_free(&prompt);
    return rc;
}

static int describe(mb_latency_case *c, const mb_arm *arm, const mb_decode_result *r, mb_error *err)
{
    mb_text text = {0};
    double *steps = malloc((r->first_count + r->later_count + 1) * sizeof *steps);
    size_t n = 0;
    for (size_t i = 0; steps && i < r->first_count; i++)
        steps[n++] = r->first_us[i];
    for (size_t i = 0; steps && i < r->later_count; i++)
        steps[n++] = r->later_us[i];
    double cost = steps ? mb_median(steps, n) : 0;
    free(steps);
    mb_text_printf(&text,
                   "request of %zu tokens in %d blocks: %.3f ms = %d denoising and %d commit forwards, %.3f ms "
                   "a denoising forward; blocks by forwards:",
                   r->count, r->blocks, r->decode_us * 1e-3, r->denoise_forwards, r->commit_forwards, cost * 1e-3);
    for (int f = 0; f < MB_FORWARD_HISTOGRAM; f++)
        if (r->forwards_histogram[f])
            mb_text_printf(&text, " %d of %d", r->forwards_histogram[f], f);
    int rc = text.failed ? mb_no_memory(err, "an event")
                         : mb_latency_event(c, "note", arm->spec->label, text.data, err);
    mb_text_free(&text);
    return rc;
}

/* The methods take turns here too; the first round warms up. */
static int request_group(mb_latency_case *c, void *user, mb_error *err)
{
    mb_run *run = c->run;
    mb_decode_request request = {.sampler = &run->samplers[0],
                                 .max_new_tokens = REQUEST_BLOCKS * run->model_config.block,
                                 .min_new_tokens = REQUEST_BLOCKS * run->model_config.block,
                                 .extra_stop_id = -1,
                                 .time_forwards = true,
                                 .stop = &mb_interrupted};
    const int32_t *ids = ((const int32_t *const *)user)[0];
    size_t count = *((const size_t *const *)user)[1];
    int rc = mb_session_prefill(c->session, 0, ids, count, NULL, err);
    for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
        mb_latency_slot *slot = &c->slots[i];
        mb_latency_row rows[REPEATS];
        size_t n = 0;
        for (int round = 0; slot->attender && !slot->failed && rc == MB_OK && round <= REPEATS; round++) {
            mb_decode_result result = {0};
            mb_telemetry state;
            mb_error why = {0};
            rc = mb_decode(c->session, slot->attender, &request, &result, &why);
            if (rc == MB_E_SAMPLE)
                rc = mb_latency_failed(c, slot, "latency", why.text, err);
            else if (rc != MB_OK)
                mb_fail(err, rc, "%s", why.text);
            else if (round == REPEATS)
                rc = describe(c, slot->arm, &result, err);
            mb_telemetry_read(run, &state);
            if (rc == MB_OK && !slot->failed && round > 0)
                rows[n++] = (mb_latency_row){.phase = "request",
                                             .context = c->context,
                                             .batch = 1,
                                             .steps = 0,
                                             .us = result.decode_us,
                                             .sm_mhz = state.sm_mhz,
                                             .throttle = state.throttle,
                                             .temperature = state.temperature,
                                             .power = state.power,
                                             .other_processes = state.other_processes,
                                             .graph = mb_attender_replays(slot->attender),
                                             .kept = true,
                                             .timer = "host_clock"};
            mb_decode_result_free(&result);
        }
        int64_t cell = 0;
        if (rc == MB_OK && n > 0 && (rc = mb_run_cell(run, slot->arm, 0, "latency", &cell, err)) == MB_OK)
            rc = mb_store_latency(run->store, cell, rows, n, err);
    }
    return rc;
}

int mb_latency_requests(mb_run *run, mb_error *err)
{
    const mb_latency_spec *spec = &run->config->latency;
    int rc = MB_OK;
    if (run->model_config.synthetic || !mb_model_tokenizer(run->model))
        return MB_OK;
    for (size_t x = 0; rc == MB_OK && x < spec->contexts.count; x++) {
        mb_latency_case c = {0};
        int32_t *ids = NULL;
        size_t count = 0;
        /* The session holds context + two blocks: the prompt leaves room for what is decoded. */
        int32_t room = spec->contexts.values[x] - REQUEST_BLOCKS * run->model_config.block;
        if (room < 2 * TEMPLATE_TOKENS) {
            char text[96];
            snprintf(text, sizeof text, "no request at %d tokens: they leave no room for a prompt",
                     spec->contexts.values[x]);
            rc = mb_store_event(run->store, run->run_id, "note", text, err);
            continue;
        }
        bool stored = false;
        mb_latency_row which = {.phase = "request", .context = spec->contexts.values[x], .batch = 1, .steps = 0};
        rc = mb_latency_stored(run, &which, true, &stored, err);
        if (rc != MB_OK || stored)
            continue;
        rc = make_prompt(run, room, &ids, &count, err);
        void *user[2] = {ids, &count};
        if (rc == MB_OK)
            rc = mb_latency_case_open(&c, run, spec->contexts.values[x], 1, 0, err);
        if (rc == MB_OK)
            rc = mb_latency_groups(&c, request_group, user, err);
        mb_latency_case_close(&c);
        free(ids);
    }
    return rc;
}
