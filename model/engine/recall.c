/*
 * recall.c - the shadow pass: what a method would have chosen, against the exact best keys of the same step.
 *
 * For each layer and denoising step the exact pass gives every prefix key's mass, averaged over all rows of the
 * block and the query heads of a KV head. S* is the |S| heaviest keys (ties: lower index).
 *      index recall = |S n S*| / |S|,   mass recall = mass(S) / mass(S*),   captured mass = mass(S)
 * averaged over KV heads, then over the blocks of the sample. No paper prints its averaging; this one is ours. A
 * KV head whose selection is the whole prefix is left out, and a layer-step where all are counts as dense, never
 * as recall 1. An empty selection has recall 0.
 */
#include "model/checkpoint/slice.h"
#include "model/engine/engine.h"

#include "model/checkpoint/config.h"
#include "model/engine/team.h"

#include <stdlib.h>
#include <string.h>

/* ---- exact keys by mass ---- */

/* Indices 0 .. n-1 by descending mass, stable: three counting passes over the bits of the floats, which order like
 * the numbers because a mass is not negative. order and other: n entries each; the result is in order. */
static void sort_by_mass(const float *mass, int32_t n, int32_t *order, int32_t *other)
{
    for (int32_t j = 0; j < n; j++)
        other[j] = j;
    for (int pass = 0; pass < 3; pass++) { /* an odd number: from `other` to `order` in the end */
        const int32_t *from = pass % 2 == 0 ? other : order;
        int32_t *to = pass % 2 == 0 ? order : other, start[2048] = {0}, at = 0;
        for (int32_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, &mass[i], sizeof bits);
            start[~bits >> (11 * pass) & 2047u]++;
        }
        for (int32_t digit = 0; digit < 2048; digit++) {
            int32_t count = start[digit];
            start[digit] = at;
            at += count;
        }
        for (int32_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, &mass[from[i]], sizeof bits);
            to[start[~bits >> (11 * pass) & 2047u]++] = from[i];
        }
    }
}

void mb_ranking_free(mb_ranking *ranking)
{
    free(ranking->rank);
    free(ranking->order);
    free(ranking->cumulated);
    free(ranking->mass);
    memset(ranking, 0, sizeof *ranking);
}

int mb_ranking_make(mb_ranking *ranking, mb_session *session, int32_t prefix, mb_error *err)
{
    size_t heads = (size_t)session->config->kv_heads, stride = (size_t)session->stride;
    if (!ranking->mass) {
        ranking->rank = malloc(heads * stride * sizeof *ranking->rank);
        ranking->order = malloc(2 * stride * sizeof *ranking->order);
        ranking->cumulated = malloc(heads * (stride + 1) * sizeof *ranking->cumulated);
        ranking->mass = malloc(heads * stride * sizeof *ranking->mass);
        if (!ranking->rank || !ranking->order || !ranking->cumulated || !ranking->mass)
            return mb_no_memory(err, "ranking %zu keys", heads * stride);
    }
    ranking->heads = (int32_t)heads;
    ranking->prefix = prefix;
    ranking->stride = (int32_t)stride;
    int rc = session->kernels->download(session->device, ranking->mass, session->buffer[MB_BUFFER_MASS_EXACT],
                                        heads * stride * sizeof *ranking->mass);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "reading the exact mass", err);
    for (size_t h = 0; h < heads; h++) {
        double *cumulated = ranking->cumulated + h * (stride + 1);
        int32_t *rank = ranking->rank + h * stride;
        float *mass = ranking->mass + h * stride;
        for (int32_t j = 0; j < prefix; j++) {
            if (!(mass[j] >= 0))
                return mb_fail(err, MB_E_SAMPLE, "the exact attention mass of key %d is not a number", j);
            mass[j] = mass[j] == 0.0f ? 0.0f : mass[j]; /* no minus zero */
        }
        sort_by_mass(mass, prefix, ranking->order, ranking->order + stride);
        cumulated[0] = 0;
        for (int32_t i = 0; i < prefix; i++) {
            rank[ranking->order[i]] = i;
            cumulated[i + 1] = cumulated[i] + (double)mass[ranking->order[i]];
        }
    }
    return MB_OK;
}

/* ---- one selection ---- */

/* Tokens that the first `count` pages hold; -1 when they are not ascending, distinct pages of the prefix. */
static int64_t count_tokens(const int32_t *ids, int32_t count, int32_t granularity, int32_t prefix)
{
    int64_t tokens = 0, last = -1;
    for (int32_t i = 0; i < count; i++) {
        int64_t first = (int64_t)ids[i] * granularity;
        if (ids[i] <= last || ids[i] < 0 || first >= prefix)
            return -1;
        last = ids[i];
        tokens += first + granularity <= prefix ? granularity : prefix - first;
    }
    return tokens;
}

/* What a head's selection of `size` tokens holds: how many of the best `size` keys, and how much mass. */
struct held {
    int64_t hits;
    double mass;
};

static struct held count_held(const mb_ranking *ranking, int32_t head, const int32_t *pages, int32_t count,
                              int32_t granularity, int64_t size)
{
    const int32_t *rank = ranking->rank + (size_t)head * (size_t)ranking->stride;
    const float *weight = ranking->mass + (size_t)head * (size_t)ranking->stride;
    struct held held = {0};
    for (int32_t i = 0; i < count; i++) {
        int32_t first = pages[i] * granularity;
        int32_t end = first + granularity < ranking->prefix ? first + granularity : ranking->prefix;
        for (int32_t j = first; j < end; j++) {
            held.hits += rank[j] < size;
            held.mass += (double)weight[j];
        }
    }
    return held;
}

/* Tokens of one head's selection; the whole prefix where it reads densely; MB_E_SAMPLE = not a valid index. */
static int64_t head_size(const mb_ranking *ranking, int32_t granularity, int32_t capacity, const int32_t *pages,
                         int32_t count, mb_error *err)
{
    if (count == -1)
        return ranking->prefix;
    if (count < -1 || count > capacity)
        return mb_fail(err, MB_E_SAMPLE, "selects %d pages, its index holds %d", count, capacity);
    int64_t size = count_tokens(pages, count, granularity, ranking->prefix);
    return size >= 0 ? size
                     : mb_fail(err, MB_E_SAMPLE,
                               "selects pages that are not ascending, distinct and inside the prefix of %d tokens",
                               ranking->prefix);
}

/* What the lists of this rank's KV heads hold. */
static int measure(const mb_ranking *ranking, int32_t granularity, int32_t capacity, const int32_t *ids,
                   const int32_t *counts, mb_held *all, mb_error *err)
{
    all->heads = ranking->heads < 64 ? ranking->heads : 64;
    for (int32_t h = 0; h < all->heads; h++) {
        const int32_t *pages = ids + (size_t)h * (size_t)capacity;
        const double *best = ranking->cumulated + (size_t)h * ((size_t)ranking->stride + 1);
        mb_error reason = {0};
        int64_t size = head_size(ranking, granularity, capacity, pages, counts[h], &reason);
        if (size < 0)
            return mb_fail(err, MB_E_SAMPLE, "KV head %d %s", h, reason.text);
        all->sparse[h] = size < ranking->prefix;
        if (!all->sparse[h])
            continue;
        struct held held = count_held(ranking, h, pages, counts[h], granularity, size);
        all->index[h] = size > 0 ? (double)held.hits / (double)size : 0;
        all->mass[h] = best[size] > 0 ? held.mass / best[size] : 0;
        all->captured[h] = held.mass;
    }
    return MB_OK;
}

/* 1: no head of them all reads less than the prefix. */
static int add_held(const mb_held *all, mb_recall_sum *sum)
{
    double captured = 0, index = 0, mass = 0;
    int32_t used = 0;
    for (int32_t h = 0; h < all->heads; h++) {
        if (!all->sparse[h])
            continue;
        index += all->index[h];
        mass += all->mass[h];
        captured += all->captured[h];
        sum->index_head[h] += all->index[h];
        sum->mass_head[h] += all->mass[h];
        sum->head_blocks[h]++;
        used++;
    }
    if (used == 0)
        return 1;
    sum->index += index / used;
    sum->mass += mass / used;
    sum->captured += captured / used;
    sum->blocks++;
    return 0;
}

int mb_recall_compare(const mb_ranking *ranking, int32_t granularity, int32_t capacity, const int32_t *ids,
                      const int32_t *counts, mb_recall_sum *sum, mb_error *err)
{
    mb_held all = {0};
    int rc = measure(ranking, granularity, capacity, ids, counts, &all, err);
    return rc == MB_OK ? add_held(&all, sum) : rc;
}

/* ---- asking the shadows ---- */

/* The sums of a step's layer, grown as steps come. */
static mb_recall_sum *sum_of(mb_shadow *shadow, int32_t layers, int32_t step, int32_t layer)
{
    if (step > shadow->steps) {
        mb_recall_sum *sums = realloc(shadow->sums, (size_t)step * (size_t)layers * sizeof *sums);
        if (!sums)
            return NULL;
        memset(sums + (size_t)shadow->steps * (size_t)layers, 0,
               (size_t)(step - shadow->steps) * (size_t)layers * sizeof *sums);
        shadow->sums = sums;
        shadow->steps = step;
    }
    return &shadow->sums[(size_t)(step - 1) * (size_t)layers + (size_t)layer];
}

/* Reads a selection back and compares it. */
static int compare_pages(mb_session *session, const mb_forward_run *run, mb_shadow *shadow,
                         const mb_ranking *ranking, int32_t layer, const mb_page_set *set)
{
    size_t heads = (size_t)session->config->kv_heads, entries = heads * (size_t)set->capacity;
    if (entries > shadow->ids_capacity) {
        int32_t *ids = realloc(shadow->ids, entries * sizeof *ids);
        if (!ids)
            return mb_no_memory(&shadow->error, "reading %zu pages", entries);
        shadow->ids = ids;
        shadow->ids_capacity = entries;
    }
    if (!shadow->counts && !(shadow->counts = malloc(heads * sizeof *shadow->counts)))
        return mb_no_memory(&shadow->error, "reading page counts");
    int rc = session->kernels->download(session->device, shadow->ids, set->ids, entries * sizeof *shadow->ids);
    if (rc == MB_OK)
        rc = session->kernels->download(session->device, shadow->counts, set->counts,
                                        heads * sizeof *shadow->counts);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "reading a selection", &shadow->error);
    rc = measure(ranking, set->granularity, set->capacity, shadow->ids, shadow->counts, &shadow->asked.held,
                 &shadow->error);
    return rc == MB_OK ? MB_OK
                       : mb_fail_prefix(&shadow->error, rc, "method %s, layer %d, block %d, step %d",
                                        shadow->attender->method.name, layer, run->block, run->step);
}

/* The heads of all ranks in their order; where several ranks have one, the mean of theirs. */
static void join_held(const mb_session *session, const mb_asked *all, size_t each, mb_held *joined)
{
    const mb_model_config *whole = &session->model->whole;
    int32_t found[64] = {0};
    memset(joined, 0, sizeof *joined);
    for (int32_t r = 0; r < session->ranks; r++) {
        const mb_held *held = &all[(size_t)r * each].held;
        int32_t first = mb_slice_kv_head(whole, session->ranks, r);
        for (int32_t h = 0; h < held->heads && first + h < 64; h++) {
            int32_t to = first + h;
            joined->heads = to + 1 > joined->heads ? to + 1 : joined->heads;
            if (!held->sparse[h])
                continue;
            joined->sparse[to] = true;
            joined->index[to] += held->index[h];
            joined->mass[to] += held->mass[h];
            joined->captured[to] += held->captured[h];
            found[to]++;
        }
    }
    for (int32_t h = 0; h < joined->heads; h++) {
        joined->index[h] /= found[h] > 1 ? found[h] : 1;
        joined->mass[h] /= found[h] > 1 ? found[h] : 1;
        joined->captured[h] /= found[h] > 1 ? found[h] : 1;
    }
}

/* What all ranks have of one shadow: all[rank * each]. */
static int take(mb_session *session, const mb_forward_run *run, mb_shadow *shadow, const mb_asked *all,
                size_t each, int32_t layer)
{
    mb_held joined;
    bool counted = shadow->asked.counted;
    for (int32_t r = 0; r < session->ranks; r++)
        if (all[(size_t)r * each].failed) {
            shadow->error = all[(size_t)r * each].error;
            return shadow->error.code ? shadow->error.code : MB_E_SAMPLE;
        }
    if (!counted)
        return MB_OK;
    mb_recall_sum *sum = sum_of(shadow, shadow->attender->shape.layers, run->step, layer);
    if (!sum)
        return mb_no_memory(&shadow->error, "recall of %d steps", run->step);
    join_held(session, all, each, &joined);
    int dense = add_held(&joined, sum);
    shadow->dense_calls += dense;
    shadow->sparse_calls += !dense;
    return MB_OK;
}

int mb_shadows_settle(mb_session *session, const mb_forward_run *run, int32_t layer, int rc, mb_error *err)
{
    const size_t n = run->shadow_count;
    mb_asked *all = rc == MB_OK ? calloc((size_t)session->ranks * (n + 1) + n, sizeof *all) : NULL;
    if (rc != MB_OK)
        return rc;
    if (!all)
        return mb_no_memory(err, "%zu shadows", n);
    mb_asked *mine = all + (size_t)session->ranks * n;
    for (size_t i = 0; i < n; i++) {
        mb_shadow *shadow = &run->shadows[i];
        shadow->asked.failed = shadow->failed;
        shadow->asked.error = shadow->error;
        mine[i] = shadow->asked;
    }
    if (session->comm)
        rc = mb_comm_gather(session->comm, mine, n * sizeof *mine, all);
    else
        memcpy(all, mine, n * sizeof *mine);
    if (rc != MB_OK)
        mb_session_failed(session, rc, "what the shadows of all ranks hold", err);
    for (size_t i = 0; rc == MB_OK && i < n; i++) {
        mb_shadow *shadow = &run->shadows[i];
        if (take(session, run, shadow, all + i, n, layer) != MB_OK)
            shadow->failed = true;
        memset(&shadow->asked, 0, sizeof shadow->asked);
    }
    free(all);
    return rc;
}

/* One shadow, one layer: its hooks in the normal order, on the exact forward's queries and statistics. */
static int ask(mb_session *session, const mb_forward_run *run, mb_shadow *shadow, const mb_ranking *ranking,
               int32_t layer, float *lse)
{
    mb_attender *attender = shadow->attender;
    mb_error *err = &shadow->error;
    mb_call call;
    mb_call_view view;
    mb_selection selection;
    mb_call_make(session, run, layer, &call, &view);
    call.mode = shadow->mode;
    int rc = mb_attender_select(attender, &call, &selection, err);
    if (rc != MB_OK)
        return rc;
    bool counted = run->phase != MB_PHASE_COMMIT;
    shadow->asked.counted = counted && (selection.answer == MB_DENSE || selection.pages);
    if (selection.answer == MB_DENSE)
        return selection.want ? mb_attender_observe(attender, &call, &selection, lse, NULL, err) : MB_OK;
    if (selection.answer != MB_SPARSE && selection.answer != MB_ATTEND)
        return mb_fail(err, MB_E_SAMPLE, "method %s, layer %d: select() gave an answer that does not exist",
                       attender->method.name, layer);
    if ((selection.answer == MB_SPARSE || selection.pages) && !mb_check_shape(selection.pages))
        return mb_fail(err, MB_E_SAMPLE,
                       "method %s, layer %d, block %d, step %d: select() gave no usable "
                       "page set",
                       attender->method.name, layer, call.block, call.step);
    if (selection.answer == MB_ATTEND) /* its state goes on as if it had been asked to attend */
        rc = mb_attender_attend(attender, &call, session->buffer[MB_BUFFER_STATE_PREFIX],
                                session->buffer[MB_BUFFER_LSE_PREFIX], err);
    if (rc == MB_OK && run->checked && selection.answer == MB_ATTEND)
        rc = mb_check_state(attender, &call, err);
    if (rc == MB_OK && run->checked)
        rc = selection.pages ? mb_check_pages(attender, &call, selection.pages, err)
                             : mb_check_guards(attender, &call, err);
    if (rc != MB_OK || !counted || !selection.pages || ranking->prefix == 0)
        return rc;
    return compare_pages(session, run, shadow, ranking, call.layer, selection.pages);
}

struct ask_turn {
    mb_session *session;
    const mb_forward_run *run;
    const mb_ranking *ranking;
    int32_t layer;
    float *lse;
};

/* The leader has attended already. */
static int turn_ask(mb_attender *attender, mb_shadow *shadow, void *user, mb_error *err)
{
    const struct ask_turn *turn = user;
    (void)attender;
    (void)err;
    return shadow ? ask(turn->session, turn->run, shadow, turn->ranking, turn->layer, turn->lse) : MB_OK;
}

int mb_shadows_ask(mb_session *session, mb_forward_run *run, mb_ranking *ranking, int32_t layer, float *lse,
                   mb_error *err)
{
    if (run->phase != MB_PHASE_COMMIT) {
        mb_call call;
        mb_call_view view;
        mb_call_make(session, run, layer, &call, &view);
        mb_attention args = mb_call_attention(&call);
        args.lse = lse;
        args.mass = session->buffer[MB_BUFFER_MASS_EXACT];
        args.mass_stride = session->stride;
        int rc = session->kernels->mass(session->device, &args);
        if (rc != MB_OK)
            return mb_session_failed(session, rc, "exact attention mass", err);
        rc = mb_ranking_make(ranking, session, session->prefix[0], err);
        if (rc != MB_OK)
            return rc;
    }
    struct ask_turn turn = {session, run, ranking, layer, lse};
    return mb_shadows_settle(session, run, mb_layer_number(session->config, layer),
                             mb_forward_each(run, turn_ask, &turn, err), err);
}

/* ---- results ---- */

int mb_shadow_result(const mb_shadow *shadow, int32_t layers, int32_t heads, mb_recall *recall, mb_error *err)
{
    size_t used = 0, all = (size_t)shadow->steps * (size_t)layers;
    memset(recall, 0, sizeof *recall);
    recall->dense_calls = shadow->dense_calls;
    recall->sparse_calls = shadow->sparse_calls;
    recall->failed = shadow->failed;
    recall->error = shadow->error;
    for (size_t i = 0; i < all; i++)
        used += shadow->sums[i].blocks > 0;
    if (used == 0)
        return MB_OK;
    recall->cells = calloc(used, sizeof *recall->cells);
    if (!recall->cells)
        return mb_no_memory(err, "%zu recall cells", used);
    heads = heads < 64 ? heads : 64;
    for (size_t i = 0; i < all; i++) {
        const mb_recall_sum *sum = &shadow->sums[i];
        if (sum->blocks == 0)
            continue;
        mb_recall_cell *cell = &recall->cells[recall->count++];
        cell->step = (int32_t)(i / (size_t)layers) + 1;
        cell->layer = (int32_t)(i % (size_t)layers);
        cell->blocks = sum->blocks;
        cell->heads = heads;
        cell->index_recall = sum->index / sum->blocks;
        cell->mass_recall = sum->mass / sum->blocks;
        cell->captured_mass = sum->captured / sum->blocks;
        for (int32_t h = 0; h < heads; h++) {
            int32_t n = sum->head_blocks[h]; /* 0: this head always read everything; it has no recall */
            cell->index_head[h] = n > 0 ? (float)(sum->index_head[h] / n) : -1.0f;
            cell->mass_head[h] = n > 0 ? (float)(sum->mass_head[h] / n) : -1.0f;
        }
    }
    return MB_OK;
}

void mb_shadow_free(mb_shadow *shadow)
{
    free(shadow->sums);
    free(shadow->ids);
    free(shadow->counts);
    memset(shadow, 0, sizeof *shadow);
}

void mb_recall_free(mb_recall *recall)
{
    free(recall->cells);
    memset(recall, 0, sizeof *recall);
}
