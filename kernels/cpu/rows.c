/*
 * rows.c - packing query rows, listing keys and the running softmax of the attention-like operations (attention.h
 * says how).
 *
 * Packing and listing copy or widen; no rounding happens. Pages may end inside the prefix: the keys of a page are
 * cut at prefix_len, and since ids ascend only the last page that counts can be short.
 */
#include "kernels/cpu/attention.h"

int mb_cpu_check_attention(mb_device *device, const char *operation, const mb_attention *args)
{
    const mb_kv *kv = &args->kv;
    if (kv->head_dim < 8 || kv->head_dim > MB_CPU_MOST_DIM || kv->head_dim % 8)
        return mb_cpu_fail(device, MB_E_BUG, "%s: head_dim %d is not a multiple of 8 up to %d", operation,
                           kv->head_dim, MB_CPU_MOST_DIM);
    if (kv->kv_heads < 1 || args->query_heads < 1 || args->query_heads % kv->kv_heads)
        return mb_cpu_fail(device, MB_E_BUG, "%s: %d query heads do not divide into %d KV heads", operation,
                           args->query_heads, kv->kv_heads);
    if (args->rows.rows < 1 || args->rows.batch < 1 || args->rows.batch > kv->batch)
        return mb_cpu_fail(device, MB_E_BUG, "%s: %d rows of %d sequences on a cache of %d", operation,
                           args->rows.rows, args->rows.batch, kv->batch);
    for (int32_t b = 0; b < args->rows.batch; b++) {
        int32_t n = args->rows.prefix_len[b];
        if (n < 0 || n > args->rows.max_prefix || n + args->rows.block_keys > kv->capacity)
            return mb_cpu_fail(device, MB_E_BUG,
                               "%s: sequence %d has prefix %d (bound %d) and %d block keys, the "
                               "cache holds %d",
                               operation, b, n, args->rows.max_prefix, args->rows.block_keys, kv->capacity);
    }
    return MB_OK;
}

void mb_cpu_rows_make(const mb_attention *args, mb_cpu_rows *rows)
{
    rows->heads = (int64_t)args->rows.batch * args->kv.kv_heads;
    rows->group = args->query_heads / args->kv.kv_heads;
    rows->count = rows->group * args->rows.rows;
    rows->padded = mb_cpu_round_up(rows->count, MB_LANES);
    rows->panels = (rows->padded + MB_PANEL - 1) / MB_PANEL;
    rows->dim = args->kv.head_dim;
    rows->scale = 1.0f / sqrtf((float)rows->dim);
}

typedef struct pack_job {
    mb_device *device;
    const mb_attention *args;
    const mb_cpu_rows *rows;
    float *to;
} pack_job;

static void pack_piece(void *arg, int64_t index, int worker)
{
    const pack_job *job = arg;
    const mb_cpu_rows *rows = job->rows;
    const mb_attention *args = job->args;
    int64_t head = index / rows->panels, panel = index % rows->panels, dim = rows->dim;
    int64_t b = head / args->kv.kv_heads, h = head % args->kv.kv_heads, width = mb_cpu_panel_width(rows, panel);
    float *lines = job->device->private_scratch[worker];
    memset(lines, 0, (size_t)(width * dim) * sizeof(float));
    for (int64_t c = 0; c < width && panel * MB_PANEL + c < rows->count; c++) {
        int64_t i = panel * MB_PANEL + c, r = i / rows->group, g = i % rows->group;
        int64_t at = (b * args->rows.rows + r) * args->query_heads + h * rows->group + g;
        mb_load_row(job->device->type, args->q, at * dim, dim, lines + c * dim);
    }
    mb_cpu_transpose(lines, dim, width, dim, job->to + (head * rows->padded + panel * MB_PANEL) * dim, width);
}

void mb_cpu_rows_pack(mb_device *device, const mb_attention *args, const mb_cpu_rows *rows, float *to)
{
    pack_job job = {device, args, rows, to};
    mb_cpu_run(device, rows->heads * rows->panels, pack_piece, &job);
}

void mb_cpu_rows_gather(const mb_attention *args, const mb_cpu_rows *rows, const float *from, bool by_head,
                        int64_t head, float rest, float *to)
{
    int64_t b = head / args->kv.kv_heads, h = head % args->kv.kv_heads;
    for (int64_t i = 0; i < rows->padded; i++) {
        int64_t row = b * args->rows.rows + i / rows->group;
        int64_t at = by_head ? row * args->query_heads + h * rows->group + i % rows->group : row;
        to[i] = i < rows->count ? from[at] : rest;
    }
}

float mb_cpu_rows_weights(const mb_attention *args, const mb_cpu_rows *rows, int64_t head, float *to)
{
    float sum = 0.0f;
    if (args->row_weight)
        mb_cpu_rows_gather(args, rows, args->row_weight, false, head, 0.0f, to);
    for (int64_t i = 0; i < rows->padded; i++) {
        if (!args->row_weight)
            to[i] = i < rows->count ? 1.0f : 0.0f;
        sum += to[i];
    }
    return sum;
}

void mb_cpu_keys_make(const mb_attention *args, int64_t head, mb_cpu_keys *keys)
{
    int64_t prefix = args->rows.prefix_len[head / args->kv.kv_heads];
    const mb_page_set *pages = args->pages;
    *keys = (mb_cpu_keys){.granularity = 1, .picked = prefix, .block_first = prefix};
    if (pages && pages->counts[head] >= 0) {
        int64_t count = pages->counts[head] < pages->capacity ? pages->counts[head] : pages->capacity;
        keys->ids = pages->ids + head * pages->capacity;
        keys->granularity = pages->granularity;
        while (count > 0 && keys->ids[count - 1] * keys->granularity >= prefix)
            count--;
        keys->picked = count * keys->granularity;
        if (count > 0 && (keys->ids[count - 1] + 1) * keys->granularity > prefix)
            keys->picked -= (keys->ids[count - 1] + 1) * keys->granularity - prefix;
    }
    if (args->scope == MB_SCOPE_BLOCK)
        keys->picked = 0;
    keys->total = keys->picked + (args->scope == MB_SCOPE_PREFIX ? 0 : args->rows.block_keys);
}

/* Slots of one (sequence, KV head) in a cache, dim columns each. */
typedef struct slots {
    const void *base;
    int64_t dim;
    mb_type type;
} slots;

/* Columns column .. column+width-1 of keys first .. first+n-1 of the list. */
static void load_columns(const slots *from, const mb_cpu_keys *keys, int64_t first, int64_t n, int64_t column,
                         int64_t width, float *dst)
{
    const void *base = from->base;
    int64_t dim = from->dim;
    mb_type type = from->type;
    while (n > 0) {
        int64_t slot, run; /* consecutive slots from here on */
        if (first >= keys->picked) {
            slot = keys->block_first + first - keys->picked;
            run = n;
        } else if (!keys->ids) {
            slot = first;
            run = keys->picked - first;
        } else {
            int64_t inside = first % keys->granularity;
            slot = (int64_t)keys->ids[first / keys->granularity] * keys->granularity + inside;
            run = keys->granularity - inside;
            run = run < keys->picked - first ? run : keys->picked - first;
        }
        run = run < n ? run : n;
        if (width == dim)
            mb_load_row(type, base, slot * dim, run * dim, dst);
        else if (width == MB_PANEL)
            for (int64_t i = 0; i < run; i++) /* a constant width needs no loop */
                mb_load_row(type, base, (slot + i) * dim + column, MB_PANEL, dst + i * MB_PANEL);
        else
            for (int64_t i = 0; i < run; i++)
                mb_load_row(type, base, (slot + i) * dim + column, width, dst + i * width);
        dst += run * width;
        first += run;
        n -= run;
    }
}

void mb_cpu_keys_load(mb_type type, const mb_cpu_keys *keys, const void *base, int64_t dim, int64_t first,
                      int64_t n, float *dst)
{
    load_columns(&(slots){base, dim, type}, keys, first, n, 0, dim, dst);
}

void mb_cpu_values_load(mb_type type, const mb_cpu_keys *keys, const void *base, int64_t dim, int64_t first,
                        int64_t n, float *dst)
{
    int64_t values = mb_cpu_round_up(dim, MB_LANES);
    for (int64_t c = 0; c < values; c += MB_PANEL) {
        int64_t width = values - c < MB_PANEL ? values - c : MB_PANEL, real = dim - c < width ? dim - c : width;
        float *to = dst + c * n;
        load_columns(&(slots){base, dim, type}, keys, first, n, c, real, to);
        for (int64_t j = n - 1; real < width && j >= 0; j--) { /* from the back: rows move outwards */
            memmove(to + j * width, to + j * real, (size_t)real * sizeof(float));
            memset(to + j * width + real, 0, (size_t)(width - real) * sizeof(float));
        }
    }
}

void mb_cpu_keys_prefetch(mb_type type, const mb_cpu_keys *keys, const void *base, int64_t dim, int64_t first,
                          int64_t n)
{
    if (keys->ids || first >= keys->picked)
        return;
    n = n < keys->picked - first ? n : keys->picked - first;
    const char *at = (const char *)base + (size_t)(first * dim) * mb_type_size(type);
    for (int64_t i = 0; i < n * dim * (int64_t)mb_type_size(type); i += 64)
        __builtin_prefetch(at + i, 0, 2);
}

const void *mb_cpu_head_base(mb_type type, const mb_kv *kv, const void *cache, int64_t head)
{
    return (const char *)cache + (size_t)head * (size_t)kv->capacity * (size_t)kv->head_dim * mb_type_size(type);
}

void mb_cpu_soften(float *logits, int64_t n, int64_t width, float scale, float *m, float *l, float *old)
{
    for (int64_t v = 0; v < width; v += MB_LANES) {
        mb_lanes most = -INFINITY - (mb_lanes){0};
        float shift[MB_LANES], sum[MB_LANES] = {0};
        for (int64_t j = 0; j < n; j++)
            mb_lanes_raise(&most, logits + j * width + v);
        for (int i = 0; i < MB_LANES; i++) {
            float before = m[v + i], now = most[i] * scale;
            m[v + i] = now > before ? now : before;
            old[v + i] = before == -INFINITY ? 0.0f : mb_exp_falling(before - m[v + i]);
            shift[i] = m[v + i] == -INFINITY ? 0.0f : m[v + i]; /* -inf minus -inf would be NaN */
        }
        for (int64_t j = 0; j < n; j++)
            for (int i = 0; i < MB_LANES; i++) {
                float e = mb_exp_falling(logits[j * width + v + i] * scale - shift[i]);
                logits[j * width + v + i] = e;
                sum[i] += e;
            }
        for (int i = 0; i < MB_LANES; i++)
            l[v + i] = l[v + i] * old[v + i] + sum[i];
    }
}
