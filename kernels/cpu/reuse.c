/*
 * reuse.c - what keeping attention states between forwards needs: deciding which rows may reuse theirs, copying
 * rows, the rows that moved most, heavy channels. Rows are query-shaped, [batch][rows][query_heads][head_dim] of
 * T; decisions are made per KV head, because the rows that share one also share a pass over its keys.
 */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>

/* Compares the rows of one KV head of a sequence; returns how many miss. *absent: one has nothing to keep. */
static int64_t misses_of(const mb_row_shape *shape, const mb_reuse *reuse, int64_t b, int64_t h, int64_t group,
                         bool *absent)
{
    int64_t misses = 0;
    for (int64_t r = 0; r < shape->rows; r++)
        for (int64_t g = 0; g < group; g++) {
            int64_t at = (b * shape->rows + r) * shape->query_heads + h * group + g;
            float line = reuse->relative ? reuse->threshold * reuse->norm[at] : reuse->threshold;
            bool hit = reuse->distance[at] < line;
            *absent = *absent || isinf(reuse->distance[at]);
            if (reuse->missed)
                reuse->missed[at] = !hit;
            misses += !hit;
        }
    return misses;
}

int mb_cpu_reuse_decide(mb_device *device, const mb_reuse_decide *args)
{
    const mb_row_shape *shape = &args->shape;
    const mb_reuse *reuse = &args->reuse;
    int64_t group = mb_cpu_group(shape), all = shape->rows * group;
    if (group < 1 || (reuse->relative && !reuse->norm))
        return mb_cpu_fail(device, MB_E_BUG, "reuse_decide: %d query heads on %d KV heads", shape->query_heads,
                           shape->kv_heads);
    for (int64_t bh = 0; bh < (int64_t)shape->batch * shape->kv_heads; bh++) {
        bool absent = false;
        int64_t misses = misses_of(shape, reuse, bh / shape->kv_heads, bh % shape->kv_heads, group, &absent);
        bool again = absent || (double)misses > (double)reuse->share * (double)all;
        reuse->active[bh] = again ? -1 : 0;
        if (reuse->counts) {
            reuse->counts[0] += (double)(all - misses);
            reuse->counts[1] += (double)all;
            reuse->counts[2] += again;
            reuse->counts[3] += 1;
        }
        if (reuse->groups)
            reuse->groups[misses == 0 ? 0 : misses < all ? 1 : 2] += 1;
    }
    return MB_OK;
}

int mb_cpu_rows_copy(mb_device *device, const mb_rows_copy *args)
{
    const mb_row_shape *shape = &args->shape;
    size_t size = (size_t)shape->head_dim * mb_type_size(device->type);
    int64_t group = mb_cpu_group(shape), heads = shape->query_heads;
    if (group < 1)
        return mb_cpu_fail(device, MB_E_BUG, "rows_copy: %d query heads on %d KV heads", shape->query_heads,
                           shape->kv_heads);
    for (int64_t at = 0; at < (int64_t)shape->batch * shape->rows * heads; at++) {
        int64_t bh = at / heads / shape->rows * shape->kv_heads + at % heads / group;
        if ((args->active && !args->active[bh]) || (args->missed && !args->missed[at]))
            continue;
        memcpy((char *)args->dst + (size_t)at * size, (const char *)args->src + (size_t)at * size, size);
        if (args->src_lse && args->dst_lse)
            args->dst_lse[at] = args->src_lse[at];
    }
    return MB_OK;
}

int mb_cpu_row_top(mb_device *device, const mb_row_top *args)
{
    int64_t rows = args->shape.rows, heads = args->shape.query_heads;
    (void)device;
    for (int64_t b = 0; b < args->shape.batch; b++) {
        const float *own = args->distance + b * rows * heads;
        int32_t *flags = args->chosen + b * rows * heads;
        memset(flags, 0, (size_t)(rows * heads) * sizeof *flags);
        for (int32_t i = 0; i < args->count && i < rows; i++) { /* blocks are short: the largest, repeatedly */
            int64_t best = -1;
            double most = -1.0;
            for (int64_t r = 0; r < rows; r++) {
                double sum = 0.0;
                for (int64_t a = 0; a < heads; a++)
                    sum += (double)own[r * heads + a];
                sum = isnan(sum) ? (double)INFINITY : sum;
                if (!flags[r * heads] && sum > most) {
                    best = r;
                    most = sum;
                }
            }
            for (int64_t a = 0; best >= 0 && a < heads; a++)
                flags[best * heads + a] = 1;
        }
    }
    return MB_OK;
}

/* Adds to own[dim] what sequence b says of KV head h. Over all pairs |q| and |k| are summed apart, because the sum
 * of |q_c k_c| is the product of the two sums; with same_token each row meets the key of its own slot. */
static void add_channels(const mb_device *device, const mb_heavy_channels *call, int64_t b, int64_t h, float *own)
{
    const mb_attention *args = &call->attention;
    const mb_kv *kv = &args->kv;
    int64_t dim = kv->head_dim, group = args->query_heads / kv->kv_heads,
            keys = (b * kv->kv_heads + h) * kv->capacity;
    int64_t first = args->rows.prefix_len[b] + args->rows.row_offset;
    float row[MB_CPU_MOST_DIM], key[MB_CPU_MOST_DIM];
    double q[MB_CPU_MOST_DIM] = {0}, k[MB_CPU_MOST_DIM] = {0};
    for (int64_t r = 0; r < args->rows.rows; r++) {
        if (call->same_token)
            mb_load_row(device->type, kv->k, (keys + first + r) * dim, dim, key);
        for (int64_t g = 0; g < group; g++) {
            int64_t at = (b * args->rows.rows + r) * args->query_heads + h * group + g;
            mb_load_row(device->type, args->q, at * dim, dim, row);
            for (int64_t c = 0; c < dim; c++)
                q[c] += (double)fabsf(row[c]) * (call->same_token ? (double)fabsf(key[c]) : 1.0);
        }
    }
    for (int64_t j = 0; j < args->rows.prefix_len[b] && !call->same_token; j++) {
        mb_load_row(device->type, kv->k, (keys + j) * dim, dim, row);
        for (int64_t c = 0; c < dim; c++)
            k[c] += (double)fabsf(row[c]);
    }
    for (int64_t c = 0; c < dim; c++)
        own[c] += (float)(call->same_token ? q[c] : q[c] * k[c]);
}

/* The `count` largest of own[dim] in ascending order; a channel's rank decides. Returns how many there are: fewer
 * where NaN ranks above nothing. */
static int32_t best_channels(const float *own, int64_t dim, int32_t count, int32_t *channels)
{
    int32_t found = 0;
    for (int64_t c = 0; c < dim; c++) {
        int64_t better = 0;
        for (int64_t d = 0; d < dim; d++)
            better += own[d] > own[c] || (own[d] == own[c] && d < c);
        if (better < count && found < count)
            channels[found++] = (int32_t)c;
    }
    return found;
}

int mb_cpu_heavy_channels(mb_device *device, const mb_heavy_channels *call)
{
    const mb_attention *args = &call->attention;
    int32_t count = call->count;
    int64_t dim = args->kv.head_dim;
    if (dim > MB_CPU_MOST_DIM || count < 1 || count > dim)
        return mb_cpu_fail(device, MB_E_BUG, "heavy_channels: %d of %lld channels", count, (long long)dim);
    for (int64_t h = 0; h < args->kv.kv_heads; h++) {
        float *own = call->scratch + h * dim;
        memset(own, 0, (size_t)dim * sizeof *own);
        for (int64_t b = 0; b < args->rows.batch; b++)
            add_channels(device, call, b, h, own);
        if (best_channels(own, dim, count, call->channels + h * count) < count) /* NaN in a cache */
            return mb_cpu_fail(device, MB_E_SAMPLE, "heavy_channels: a query or a key is not a number");
    }
    return MB_OK;
}
