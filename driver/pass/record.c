/*
 * record.c - keeps what a decode reports: a row a forward, a row a layer and step that ran sparse, and the
 * prompt's text with the bytes of each token, so that a selected key can be shown in the text.
 */
#include "driver/pass/record.h"

#include <stdlib.h>
#include <string.h>

typedef struct kept { /* where a row's bytes lie in the recorder's texts */
    size_t at, size;
} kept;

struct mb_recorder {
    const mb_tokenizer *tokenizer;
    mb_text pages, written, prompt, token_bytes;
    mb_selection_row *selections;
    kept *selection_places; /* size 0: as the step before */
    mb_step_row *steps;
    kept *step_places;
    size_t selection_count, selection_capacity, step_count, step_capacity;
    mb_record_row row;
    bool failed; /* no memory */
};

static void put_number(mb_text *out, uint64_t value)
{
    do {
        char byte = (char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        mb_text_append(out, &byte, 1);
        value >>= 7;
    } while (value);
}

/* Room for one row more, of two arrays that grow alike. */
static bool grow(void **rows, size_t size, kept **places, size_t count, size_t *capacity)
{
    if (count < *capacity)
        return true;
    size_t more = *capacity ? 2 * *capacity : 256;
    void *grown = realloc(*rows, more * size);
    *rows = grown ? grown : *rows;
    kept *where = realloc(*places, more * sizeof *where);
    *places = where ? where : *places;
    if (!grown || !where)
        return false;
    *capacity = more;
    return true;
}

static void put_pages(mb_text *out, const mb_selected *what)
{
    for (int32_t h = 0; h < what->kv_heads; h++) {
        const int32_t *ids = what->ids + (size_t)h * (size_t)what->capacity;
        put_number(out, (uint64_t)(what->counts[h] + 1));
        for (int32_t i = 0; i < what->counts[h]; i++)
            put_number(out, (uint64_t)(i ? ids[i] - ids[i - 1] : ids[i]));
    }
}

/* The newest row of this block and layer that has pages of its own; NULL: none. */
static const kept *last_pages(const mb_recorder *r, const mb_selected *what)
{
    for (size_t i = r->selection_count; i-- > 0;) {
        const mb_selection_row *row = &r->selections[i];
        if (row->block != what->block)
            return NULL;
        if (row->layer == what->layer && r->selection_places[i].size)
            return row->granularity == what->granularity && row->prefix == what->prefix ? &r->selection_places[i]
                                                                                        : NULL;
    }
    return NULL;
}

static void on_selected(void *user, const mb_selected *what)
{
    mb_recorder *r = user;
    if (what->granularity == 0 || r->failed)
        return;
    if (!grow((void **)&r->selections, sizeof *r->selections, &r->selection_places, r->selection_count,
              &r->selection_capacity)) {
        r->failed = true;
        return;
    }
    const kept *before = last_pages(r, what);
    kept place = {.at = r->pages.length};
    put_pages(&r->pages, what);
    place.size = r->pages.length - place.at;
    if (r->pages.failed) {
        r->failed = true;
        return;
    }
    if (before && before->size == place.size &&
        memcmp(r->pages.data + before->at, r->pages.data + place.at, place.size) == 0) {
        r->pages.length = place.at;
        place.size = 0;
    }
    r->selection_places[r->selection_count] = place;
    r->selections[r->selection_count++] = (mb_selection_row){.block = what->block,
                                                             .layer = what->layer,
                                                             .step = what->step,
                                                             .granularity = what->granularity,
                                                             .prefix = what->prefix,
                                                             .kv_heads = what->kv_heads};
}

static void on_step(void *user, const mb_trace_step *step)
{
    mb_recorder *r = user;
    if (r->failed ||
        !grow((void **)&r->steps, sizeof *r->steps, &r->step_places, r->step_count, &r->step_capacity)) {
        r->failed = true;
        return;
    }
    kept place = {.at = r->written.length};
    mb_text_puts(&r->written, "[");
    for (int32_t i = 0; i < step->count; i++) {
        char *text = NULL;
        size_t length = 0;
        mb_text_printf(&r->written, "%s[%d,\"", i ? "," : "", step->positions[i]);
        if (mb_tokenizer_decode(r->tokenizer, &step->tokens[i], 1, false, &text, &length, NULL) == MB_OK)
            mb_text_json(&r->written, text);
        mb_text_puts(&r->written, "\"]");
        free(text);
    }
    mb_text_append(&r->written, "]", 2); /* each with its end: they are read in place */
    r->failed = r->failed || r->written.failed;
    r->step_places[r->step_count] = place;
    r->steps[r->step_count++] = (mb_step_row){.block = step->block,
                                              .step = step->kind == 'C' ? 0 : step->step,
                                              .masked = step->masked_before,
                                              .prefix = step->prefix};
}

/* A character may be spelled by several tokens: they are taken together until they end with a whole one, and the
 * first stands for all of its bytes. */
static int put_prompt(mb_recorder *r, const mb_prepared *prepared, mb_error *err)
{
    enum { TOGETHER = 8 };
    mb_text bytes = {0};
    int rc = MB_OK;
    for (size_t i = 0, n; rc == MB_OK && i < prepared->count; i += n) {
        char *text = NULL;
        size_t length = 0;
        for (n = 1;; n++) {
            free(text);
            rc = mb_tokenizer_decode(r->tokenizer, prepared->ids + i, n, false, &text, &length, err);
            bool cut = rc == MB_OK && length >= 3 && memcmp(text + length - 3, "\xef\xbf\xbd", 3) == 0;
            if (!cut || n == TOGETHER || i + n == prepared->count)
                break;
        }
        if (rc == MB_OK)
            mb_text_append(&bytes, text, length);
        put_number(&r->token_bytes, length);
        for (size_t k = 1; k < n; k++)
            put_number(&r->token_bytes, 0);
        free(text);
    }
    if (rc == MB_OK)
        mb_text_spell(&r->prompt, bytes.data ? bytes.data : "", bytes.length);
    if (rc == MB_OK && (bytes.failed || r->prompt.failed || r->token_bytes.failed))
        rc = mb_no_memory(err, "the text of a prompt");
    mb_text_free(&bytes);
    return rc;
}

int mb_record_begin(const mb_run *run, const mb_prepared *prepared, const mb_arm *arm, mb_decode_request *request,
                    mb_recorder **recorder, mb_error *err)
{
    *recorder = NULL;
    const mb_tokenizer *tokenizer = mb_model_tokenizer(run->model);
    bool whole = prepared->index < run->config->record_selections;
    if ((!whole && prepared->index >= run->config->record_prompts) || arm->isolated || !tokenizer)
        return MB_OK;
    mb_recorder *r = calloc(1, sizeof *r);
    if (!r)
        return mb_no_memory(err, "the record of a sample");
    r->tokenizer = tokenizer;
    int rc = put_prompt(r, prepared, err);
    if (rc != MB_OK) {
        mb_record_free(r);
        return rc;
    }
    if (whole) {
        request->trace = on_step;
        request->selected = on_selected;
        request->user = r;
    }
    *recorder = r;
    return MB_OK;
}

int mb_record_finish(mb_recorder *r, mb_sample_row *row, mb_error *err)
{
    if (!r)
        return MB_OK;
    if (r->failed)
        return mb_no_memory(err, "the record of a sample");
    for (size_t i = 0; i < r->step_count; i++)
        r->steps[i].written = r->written.data + r->step_places[i].at;
    for (size_t i = 0; i < r->selection_count; i++) {
        const kept *place = &r->selection_places[i];
        r->selections[i].pages = place->size ? (const unsigned char *)r->pages.data + place->at : NULL;
        r->selections[i].size = place->size;
    }
    r->row = (mb_record_row){.prompt = r->prompt.data ? r->prompt.data : "",
                             .token_bytes = (const unsigned char *)r->token_bytes.data,
                             .token_bytes_size = r->token_bytes.length,
                             .steps = r->steps,
                             .step_count = r->step_count,
                             .selections = r->selections,
                             .selection_count = r->selection_count};
    row->record = &r->row;
    return MB_OK;
}

void mb_record_free(mb_recorder *r)
{
    if (!r)
        return;
    mb_text_free(&r->pages);
    mb_text_free(&r->written);
    mb_text_free(&r->prompt);
    mb_text_free(&r->token_bytes);
    free(r->selections);
    free(r->selection_places);
    free(r->steps);
    free(r->step_places);
    free(r);
}
