/*
 * batch.c - noise: which tokens of a tail are masked, what is asked of which row. The rule for marked documents is
 * that of the embedded model's recipe; complementary pairs and the token shift are Fast-dLLM v2's.
 */
#include "training/batch.h"

#include <stdlib.h>
#include <string.h>

#define LEAST_SHARE 1e-3 /* of masked tokens in a block (Fast-dLLM v2's eps) */
#define REST_SHARE 0.15  /* of blocks with an answer in which other tokens are masked too */

void mb_document_free(mb_document *document)
{
    free(document->ids);
    free(document->marks);
    *document = (mb_document){0};
}

int mb_source_next(mb_source *source, const mb_document_request *request, mb_document *document, mb_error *err)
{
    *document = (mb_document){.length = request->length};
    document->ids = calloc((size_t)request->length, sizeof *document->ids);
    document->marks = calloc((size_t)request->length, sizeof *document->marks);
    int rc = document->ids && document->marks ? source->next(source, request, document, err)
                                              : mb_no_memory(err, "a document of %d tokens", request->length);
    if (rc != MB_OK)
        mb_document_free(document);
    return rc;
}

void mb_source_close(mb_source *source)
{
    if (source)
        source->close(source);
}

void mb_batch_free(mb_batch *batch)
{
    free(batch->ids);
    free(batch->positions);
    free(batch->row);
    free(batch->target);
    free(batch->weight);
    *batch = (mb_batch){0};
}

static bool has_answer(const uint8_t *marks, int32_t block)
{
    return memchr(marks, MB_MARK_ANSWER, (size_t)block) != NULL;
}

/* Which tokens of one block are masked. */
static void draw_block(const mb_noise *noise, const uint8_t *marks, int32_t block, mb_random *random, bool *masked)
{
    double share = LEAST_SHARE + (1.0 - LEAST_SHARE) * mb_random_unit(random), rest = share;
    if (mb_random_unit(random) < noise->full_blocks)
        share = rest = 1.0;
    if (has_answer(marks, block) && !noise->complementary) {
        const double other = mb_random_unit(random), draw = mb_random_unit(random);
        rest = draw < REST_SHARE ? 0.5 * other : 0.0;
    }
    for (int32_t i = 0; i < block; i++)
        masked[i] = mb_random_unit(random) < (marks[i] != MB_MARK_TEXT ? share : rest);
}

static double weight_of(const mb_noise *noise, uint8_t mark)
{
    return mark == MB_MARK_ANSWER ? 1.0 : mark == MB_MARK_PADDING ? noise->padding_weight : noise->text_weight;
}

/* The row that predicts position p of a document whose first row is `first`; -1 = none does. */
static int32_t predictor(const mb_train_layout *layout, const mb_noise *noise, int32_t first, int32_t p)
{
    const int32_t at = noise->token_shift ? p - 1 : p, start = layout->clean - layout->tail;
    if (at < 0)
        return -1;
    return at < start ? first + at : first + layout->clean + at - start; /* before the tail: the clean row */
}

static void add_target(mb_batch *batch, int32_t row, int32_t target, double weight)
{
    if (weight <= 0.0 || row < 0)
        return;
    batch->row[batch->targets] = row;
    batch->target[batch->targets] = target;
    batch->weight[batch->targets++] = (float)weight;
    batch->weight_sum += weight;
}

/* What stands in place of a hidden token. */
static int32_t draw_noise(const mb_noise *noise, mb_random *random)
{
    return noise->uniform > 0 ? (int32_t)mb_random_below(random, (uint64_t)noise->uniform) : noise->mask_id;
}

/* One document's rows behind those that the batch has. masked: [tail]. */
static void add_document(mb_batch *batch, int32_t number, const mb_document *document, const mb_noise *noise,
                         mb_random *random, const bool *masked)
{
    const mb_train_layout *layout = &batch->layout;
    const int32_t start = layout->clean - layout->tail, first = number * (layout->clean + layout->tail);
    for (int32_t p = 0; p < layout->clean; p++) {
        batch->ids[first + p] = document->ids[p];
        batch->positions[first + p] = p;
    }
    for (int32_t p = start; p < layout->clean; p++) {
        const int32_t row = first + layout->clean + p - start, from = predictor(layout, noise, first, p);
        const bool hidden = masked[p - start];
        const double share = hidden ? 1.0 : noise->uniform > 0 ? noise->kept_weight : 0.0;
        batch->ids[row] = hidden ? draw_noise(noise, random) : document->ids[p];
        batch->positions[row] = p;
        add_target(batch, from, document->ids[p], share * weight_of(noise, document->marks[p]));
    }
}

static int take(mb_batch *batch, const mb_train_layout *layout, size_t targets, mb_error *err)
{
    const size_t rows = (size_t)mb_train_rows(layout);
    *batch = (mb_batch){.layout = *layout,
                        .ids = calloc(rows, sizeof *batch->ids),
                        .positions = calloc(rows, sizeof *batch->positions),
                        .row = calloc(targets, sizeof *batch->row),
                        .target = calloc(targets, sizeof *batch->target),
                        .weight = calloc(targets, sizeof *batch->weight)};
    if (batch->ids && batch->positions && batch->row && batch->target && batch->weight)
        return MB_OK;
    mb_batch_free(batch);
    return mb_no_memory(err, "a batch of %zu rows", rows);
}

int mb_batch_make(mb_batch *batch, const mb_train_layout *layout, const mb_document *documents,
                  const mb_noise *noise, mb_random *random, mb_error *err)
{
    bool *masked = calloc((size_t)layout->tail + 1, sizeof *masked);
    int rc = masked ? take(batch, layout, (size_t)layout->documents * (size_t)layout->tail, err)
                    : mb_no_memory(err, "a batch");
    for (int32_t d = 0; rc == MB_OK && d < layout->documents; d++) {
        const uint8_t *marks = documents[d].marks + layout->clean - layout->tail;
        if (noise->complementary && d % 2 == 1)
            for (int32_t i = 0; i < layout->tail; i++)
                masked[i] = !masked[i];
        else
            for (int32_t i = 0; i < layout->tail; i += layout->block)
                draw_block(noise, marks + i, layout->block, random, masked + i);
        add_document(batch, d, &documents[d], noise, random, masked);
    }
    free(masked);
    return rc;
}

int mb_batch_make_causal(mb_batch *batch, const mb_train_layout *layout, const mb_document *documents,
                         const mb_noise *noise, mb_error *err)
{
    const int32_t each = noise->complementary ? 2 : 1, clean = layout->clean;
    const mb_train_layout causal = {(layout->documents + each - 1) / each, clean, 0, 1};
    int rc = take(batch, &causal, (size_t)causal.documents * (size_t)clean, err);
    for (int32_t d = 0; rc == MB_OK && d < causal.documents; d++)
        for (int32_t p = 0; p < clean; p++) {
            const mb_document *document = &documents[d * each];
            batch->ids[d * clean + p] = document->ids[p];
            batch->positions[d * clean + p] = p;
            if (p > 0)
                add_target(batch, d * clean + p - 1, document->ids[p], weight_of(noise, document->marks[p]));
        }
    return rc;
}
