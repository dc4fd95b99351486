/*
 * check.c - what a method hands over, checked before it is used: its index, the memory behind its index, its own
 * attention states. A breach is MB_E_SAMPLE and names the method, the layer and the step: it fails that cell.
 *
 * Checked are forwards of decoding, never those that are timed. On the CPU each of them; on a GPU, where
 * reading an index back waits for the device, the first steps of a sample that run eagerly (decode.c chooses).
 *
 * Behind every array of mb_host.pages_alloc() lie MB_GUARD_BYTES of a pattern that nobody may change. A write far
 * beyond them is not seen here: against that helps the process of its own that a run gives to plug-ins.
 */
#include "model/checkpoint/slice.h"
#include "model/engine/engine.h"

#include <stdlib.h>
#include <string.h>

#define GUARD_BYTE 0x5a

/* The method's place in a sentence. */
static int breach(const mb_attender *attender, const mb_call *call, const char *what, mb_error *err)
{
    return mb_fail(err, MB_E_SAMPLE, "method %s, layer %d, block %d, step %d: %s", attender->method.name,
                   call->layer, call->block, call->step, what);
}

int64_t mb_attender_budget(const mb_method *method, const void *options)
{
    for (const mb_option *o = method->options; o && o->name && options; o++) {
        int64_t k = 0;
        if (strcmp(o->name, "k") != 0 || o->type != MB_OPTION_INT)
            continue;
        memcpy(&k, (const char *)options + o->offset, sizeof k);
        return k;
    }
    return 0;
}

bool mb_check_shape(const mb_page_set *set)
{
    if (!set || !set->ids || !set->counts || set->capacity < 1)
        return false;
    int32_t g = set->granularity;
    return g == 1 || g == 16 || g == 32 || g == 64 || g == 128;
}

/* ---- guards ---- */

int mb_guard_add(mb_attender *attender, void *at)
{
    mb_session *session = attender->session;
    if (!session) /* open() is only measured */
        return MB_OK;
    void **grown = realloc(attender->guards, (attender->guard_count + 1) * sizeof *grown);
    if (!grown)
        return MB_E_SYSTEM;
    attender->guards = grown;
    grown[attender->guard_count++] = at;
    return session->kernels->fill(session->device, at, GUARD_BYTE, MB_GUARD_BYTES);
}

int mb_check_guards(mb_attender *attender, const mb_call *call, mb_error *err)
{
    const mb_session *session = attender->session;
    unsigned char bytes[MB_GUARD_BYTES];
    for (size_t i = 0; i < attender->guard_count; i++) {
        int rc = session->kernels->download(session->device, bytes, attender->guards[i], sizeof bytes);
        if (rc != MB_OK)
            return mb_session_failed(session, rc, "reading a guard", err);
        for (size_t b = 0; b < sizeof bytes; b++) {
            if (bytes[b] == GUARD_BYTE)
                continue;
            /* Restored, so that the next sample is blamed for its own writes only. */
            session->kernels->fill(session->device, attender->guards[i], GUARD_BYTE, MB_GUARD_BYTES);
            return breach(attender, call, "it wrote behind the end of its index (ids or counts)", err);
        }
    }
    return MB_OK;
}

/* ---- the index ---- */

/* Room in host memory for n words; kept until the attender closes. */
static int32_t *words_of(mb_attender *attender, size_t n)
{
    if (n <= attender->word_count)
        return attender->words;
    int32_t *grown = realloc(attender->words, n * sizeof *grown);
    if (!grown)
        return NULL;
    attender->words = grown;
    attender->word_count = n;
    return grown;
}

/* Ids of one KV head: ascending, distinct, pages of the prefix. */
static int check_ids(const mb_attender *attender, const mb_call *call, const int32_t *ids, int32_t count,
                     int32_t head, int32_t pages, mb_error *err)
{
    char what[160];
    const char *fault = NULL;
    int32_t i = 0;
    for (; i < count && !fault; i++) {
        if (ids[i] < 0 || ids[i] >= pages)
            fault = "lies outside the prefix";
        else if (i > 0 && ids[i] == ids[i - 1])
            fault = "comes twice";
        else if (i > 0 && ids[i] < ids[i - 1])
            fault = "does not ascend";
    }
    if (!fault)
        return MB_OK;
    snprintf(what, sizeof what, "page %d of KV head %d %s (entry %d of %d; the prefix has pages 0 to %d)",
             ids[i - 1], head, fault, i, count, pages - 1);
    return breach(attender, call, what, err);
}

int mb_check_pages(mb_attender *attender, const mb_call *call, const mb_page_set *set, mb_error *err)
{
    const mb_session *session = attender->session;
    int32_t heads = session->config->kv_heads, batch = ((const mb_call_view *)call->internal)->rows.batch;
    size_t sets = (size_t)batch * (size_t)heads, entries = sets * (size_t)set->capacity;
    int64_t most = (attender->budget + set->granularity - 1) / set->granularity * heads;
    char what[160];
    int rc = mb_check_guards(attender, call, err);
    if (rc != MB_OK)
        return rc;
    int32_t *counts = words_of(attender, sets + entries), *ids = counts + sets;
    if (!counts)
        return mb_no_memory(err, "checking an index of %zu pages", entries);
    rc = session->kernels->download(session->device, counts, set->counts, sets * sizeof *counts);
    if (rc == MB_OK)
        rc = session->kernels->download(session->device, ids, set->ids, entries * sizeof *ids);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "reading an index", err);
    for (int32_t b = 0; b < batch; b++) {
        int64_t used = 0; /* k is what a KV head reads on average: the heads of a sequence may share it */
        int32_t pages = (session->prefix[b] + set->granularity - 1) / set->granularity;
        for (int32_t h = 0; h < heads; h++) {
            size_t at = (size_t)b * (size_t)heads + (size_t)h;
            if (counts[at] < -1 || counts[at] > set->capacity) {
                snprintf(what, sizeof what, "KV head %d selects %d pages, its index holds %d", h, counts[at],
                         set->capacity);
                return breach(attender, call, what, err);
            }
            rc = check_ids(attender, call, ids + at * (size_t)set->capacity, counts[at], h, pages, err);
            if (rc != MB_OK)
                return rc;
            used += counts[at] < 0 ? pages : counts[at];
        }
        if (attender->budget > 0 && used > most) {
            snprintf(what, sizeof what, "%d KV heads select %lld pages of %d tokens, k = %lld allows %lld", heads,
                     (long long)used, set->granularity, (long long)attender->budget, (long long)most);
            return breach(attender, call, what, err);
        }
    }
    return MB_OK;
}

/* This rank's counts and ids, one behind the other, become those of all KV heads: *counts then points to them, and
 * set's sizes are 0 where the ranks do not answer alike. A KV head that several ranks have is its first rank's. */
static int join_index(mb_attender *attender, mb_page_set *set, int32_t **counts, mb_error *err)
{
    const mb_session *session = attender->session;
    const size_t heads = (size_t)session->config->kv_heads, all = (size_t)session->model->whole.kv_heads;
    int32_t sizes[MB_RANKS_MAX][2], own[2] = {set->granularity, set->capacity};
    int rc = mb_comm_gather(session->comm, own, sizeof own, sizes);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "the index of all ranks", err);
    for (int32_t r = 0; r < session->ranks; r++)
        if (memcmp(sizes[r], own, sizeof own) != 0)
            set->granularity = set->capacity = 0;
    if (set->granularity == 0)
        return MB_OK;
    const size_t capacity = (size_t)set->capacity, each = heads * (1 + capacity), ranks = (size_t)session->ranks;
    int32_t *words = words_of(attender, ranks * each + all * (1 + capacity));
    if (!words)
        return mb_no_memory(err, "an index of %zu pages", all * capacity);
    /* The own part lies at the beginning, which gathering writes over with rank 0's. */
    rc = mb_comm_gather(session->comm, words, each * sizeof *words, words);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "the index of all ranks", err);
    int32_t *joined = words + ranks * each;
    for (size_t r = ranks; r-- > 0;) {
        const int32_t first = mb_slice_kv_head(&session->model->whole, session->ranks, (int32_t)r);
        for (size_t h = 0; h < heads; h++) {
            joined[(size_t)first + h] = words[r * each + h];
            memcpy(joined + all + ((size_t)first + h) * capacity, words + r * each + heads + h * capacity,
                   capacity * sizeof *joined);
        }
    }
    *counts = joined;
    return MB_OK;
}

int mb_tell_selected(mb_attender *attender, const mb_forward_run *run, const mb_call *call, const mb_page_set *set,
                     mb_error *err)
{
    const mb_session *session = attender->session;
    const size_t heads = (size_t)session->config->kv_heads;
    mb_page_set shown = set ? *set : (mb_page_set){0};
    size_t entries = heads * (size_t)shown.capacity;
    int32_t *counts = words_of(attender, heads + entries);
    int rc = counts ? MB_OK : mb_no_memory(err, "an index of %zu pages", entries);
    if (rc == MB_OK && set) {
        rc = session->kernels->download(session->device, counts, set->counts, heads * sizeof *counts);
        if (rc == MB_OK)
            rc = session->kernels->download(session->device, counts + heads, set->ids, entries * sizeof *counts);
        if (rc != MB_OK)
            mb_session_failed(session, rc, "reading an index", err);
    }
    mb_selected what = {.block = call->block,
                        .step = call->step,
                        .layer = call->layer,
                        .prefix = session->prefix[0],
                        .kv_heads = session->model->whole.kv_heads};
    if (rc == MB_OK && session->comm)
        rc = join_index(attender, &shown, &counts, err);
    if (rc != MB_OK)
        return rc;
    if (shown.granularity > 0) {
        what.granularity = shown.granularity;
        what.capacity = shown.capacity;
        what.counts = counts;
        what.ids = counts + what.kv_heads;
    }
    run->watcher->selected(run->watcher->user, &what);
    return MB_OK;
}

/* ---- states ---- */

/* Whether a word has all exponent bits set: infinite or NaN. */
static bool is_special(uint32_t bits)
{
    return (bits & 0x7f800000u) == 0x7f800000u;
}

int mb_check_state(mb_attender *attender, const mb_call *call, mb_error *err)
{
    const mb_session *session = attender->session;
    const mb_model_config *config = session->config;
    int32_t batch = ((const mb_call_view *)call->internal)->rows.batch;
    size_t states = (size_t)batch * (size_t)call->rows * (size_t)config->query_heads;
    size_t values = states * (size_t)config->head_dim, size = mb_type_size(session->type);
    uint32_t *words = (uint32_t *)(void *)words_of(attender, values + states);
    if (!words)
        return mb_no_memory(err, "checking %zu states", states);
    uint32_t *lse = words + values;
    const uint16_t *halves = (const uint16_t *)(const void *)words;
    int rc =
        session->kernels->download(session->device, words, session->buffer[MB_BUFFER_STATE_PREFIX], values * size);
    if (rc == MB_OK)
        rc = session->kernels->download(session->device, lse, session->buffer[MB_BUFFER_LSE_PREFIX],
                                        states * sizeof *lse);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "reading a state", err);
    for (size_t i = 0; i < states; i++)
        if (is_special(lse[i]) && lse[i] != 0xff800000u) /* -infinity: it read no key */
            return breach(attender, call, "attend() gave a log-sum-exp that is no number", err);
    for (size_t i = 0; i < values; i++)
        if (is_special(size == 2 ? (uint32_t)halves[i] << 16 : words[i]))
            return breach(attender, call, "attend() gave an output that is not finite", err);
    return MB_OK;
}

/* ---- the cache ---- */

/* One layer's keys or values: the first tokens of every KV head. */
static int hash_heads(const mb_session *session, const mb_kv *kv, const char *from, int32_t tokens, void *row,
                      mb_hash *hash)
{
    size_t width = (size_t)kv->head_dim * mb_type_size(session->type), bytes = (size_t)tokens * width;
    int rc = MB_OK;
    for (int32_t h = 0; h < kv->kv_heads && rc == MB_OK; h++) {
        rc = session->kernels->download(session->device, row, from + (size_t)h * (size_t)kv->capacity * width,
                                        bytes);
        mb_hash_add(hash, row, bytes);
    }
    return rc;
}

int mb_cache_hash(const mb_session *session, int32_t tokens, char (**hashes)[MB_HASH_CAP], mb_error *err)
{
    const mb_model_config *config = session->config;
    const int32_t dim = config->local.head_dim > config->head_dim ? config->local.head_dim : config->head_dim;
    size_t width = (size_t)dim * mb_type_size(session->type);
    char(*all)[MB_HASH_CAP] = calloc((size_t)session->config->layers, sizeof *all);
    void *row = malloc((size_t)tokens * width + 1);
    int rc = all && row ? MB_OK : mb_no_memory(err, "watching a cache of %d tokens", tokens);
    for (int32_t l = 0; l < session->config->layers && rc == MB_OK; l++) {
        mb_hash *hash = mb_hash_new();
        if (!hash) {
            rc = mb_no_memory(err, "watching a cache of %d tokens", tokens);
            break;
        }
        rc = hash_heads(session, &session->kv[l], session->kv[l].k, tokens, row, hash);
        if (rc == MB_OK)
            rc = hash_heads(session, &session->kv[l], session->kv[l].v, tokens, row, hash);
        mb_hash_end(hash, all[l]);
        if (rc != MB_OK)
            mb_session_failed(session, rc, "reading the cache", err);
    }
    free(row);
    if (rc == MB_OK) {
        *hashes = all;
        all = NULL;
    }
    free(all);
    return rc;
}
