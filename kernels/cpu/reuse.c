/*
 * reuse.c - what keeping attention states between forwards needs: deciding which rows may reuse theirs, copying
 * and matching rows. Rows are query-shaped, [batch][rows][query_heads][head_dim] of T; decisions are made per KV
 * head, because the rows that share one also share a pass over its keys.
 */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>

int mb_cpu_reuse_decide(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                        const float *distance, const float *norm, float threshold, int relative, float share,
                        int32_t *active, int32_t *missed, double *counts, double *groups)
{
    int32_t group = kv_heads > 0 ? query_heads / kv_heads : 0;
    if (group < 1 || group * kv_heads != query_heads || (relative && !norm))
        return mb_cpu_fail(device, MB_E_BUG, "reuse_decide: %d query heads on %d KV heads", query_heads, kv_heads);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < kv_heads; h++) {
            int64_t misses = 0;
            for (int64_t r = 0; r < rows; r++)
                for (int64_t g = 0; g < group; g++) {
                    int64_t at = (b * rows + r) * query_heads + h * group + g;
                    bool hit = distance[at] < (relative ? threshold * norm[at] : threshold);
                    if (missed)
                        missed[at] = !hit;
                    misses += !hit;
                }
            bool again = (double)misses > (double)share * (double)(rows * group);
            active[b * kv_heads + h] = again ? -1 : 0;
            if (counts) {
                counts[0] += (double)(rows * group - misses);
                counts[1] += (double)(rows * group);
                counts[2] += again;
                counts[3] += 1;
            }
            if (groups)
                groups[misses == 0 ? 0 : misses < rows * group ? 1 : 2] += 1;
        }
    return MB_OK;
}

int mb_cpu_rows_copy(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                     int32_t head_dim, const int32_t *active, const int32_t *missed, const void *src,
                     const float *src_lse, void *dst, float *dst_lse)
{
    size_t size = (size_t)head_dim * mb_type_size(device->type);
    int32_t group = kv_heads > 0 ? query_heads / kv_heads : 0;
    if (group < 1 || group * kv_heads != query_heads)
        return mb_cpu_fail(device, MB_E_BUG, "rows_copy: %d query heads on %d KV heads", query_heads, kv_heads);
    for (int64_t at = 0; at < (int64_t)batch * rows * query_heads; at++) {
        int64_t b = at / query_heads / rows, h = at % query_heads / group;
        if ((active && !active[b * kv_heads + h]) || (missed && !missed[at]))
            continue;
        memcpy((char *)dst + (size_t)at * size, (const char *)src + (size_t)at * size, size);
        if (src_lse && dst_lse)
            dst_lse[at] = src_lse[at];
    }
    return MB_OK;
}

typedef struct match_job {
    const mb_device *device;
    int32_t rows, query_heads, head_dim, slots;
    const void *a, *ring;
    int32_t *slot;
    float *distance, *norm;
} match_job;

/* One row of one sequence, all query heads. */
static void match_piece(void *arg, int64_t index, int worker)
{
    const match_job *job = arg;
    int64_t b = index / job->rows, dim = job->head_dim;
    float own[256], stored[256];
    (void)worker;
    for (int64_t head = 0; head < job->query_heads; head++) {
        int64_t at = index * job->query_heads + head;
        mb_load_row(job->device->type, job->a, at * dim, dim, own);
        job->slot[at] = 0;
        job->distance[at] = INFINITY;
        job->norm[at] = 0.0f;
        for (int64_t s = 0; s < job->slots; s++) {
            float distance = 0.0f, norm = 0.0f;
            mb_load_row(job->device->type, job->ring, ((b * job->slots + s) * job->query_heads + head) * dim, dim,
                        stored);
            for (int64_t c = 0; c < dim; c++) {
                distance += (own[c] - stored[c]) * (own[c] - stored[c]);
                norm += stored[c] * stored[c];
            }
            if (distance < job->distance[at]) {
                job->slot[at] = (int32_t)s;
                job->distance[at] = distance;
                job->norm[at] = norm;
            }
        }
    }
}

int mb_cpu_row_match(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                     const void *a, const void *ring, int32_t slots, int32_t *slot, float *distance, float *norm)
{
    match_job job = {device, rows, query_heads, head_dim, slots, a, ring, slot, distance, norm};
    if (head_dim < 1 || head_dim > 256 || slots < 1)
        return mb_cpu_fail(device, MB_E_BUG, "row_match: head_dim %d, %d slots", head_dim, slots);
    mb_cpu_run(device, (int64_t)batch * rows, match_piece, &job);
    return MB_OK;
}

int mb_cpu_row_gather(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                      const int32_t *slot, const void *ring, const float *ring_lse, int32_t slots, void *out,
                      float *lse)
{
    size_t size = (size_t)head_dim * mb_type_size(device->type);
    for (int64_t at = 0; at < (int64_t)batch * rows * query_heads; at++) {
        int64_t b = at / query_heads / rows, head = at % query_heads;
        if (slot[at] < 0 || slot[at] >= slots)
            return mb_cpu_fail(device, MB_E_BUG, "row_gather: slot %d of %d", slot[at], slots);
        int64_t from = (b * slots + slot[at]) * query_heads + head;
        memcpy((char *)out + (size_t)at * size, (const char *)ring + (size_t)from * size, size);
        lse[at] = ring_lse[from];
    }
    return MB_OK;
}

int mb_cpu_row_top(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, const float *distance,
                   int32_t count, int32_t *chosen)
{
    (void)device;
    for (int64_t b = 0; b < batch; b++) {
        const float *own = distance + b * rows * query_heads;
        int32_t *flags = chosen + b * rows * query_heads;
        memset(flags, 0, (size_t)rows * (size_t)query_heads * sizeof *flags);
        for (int32_t i = 0; i < count && i < rows; i++) { /* blocks are short: pick the largest, repeatedly */
            int64_t best = -1;
            double most = -1.0;
            for (int64_t r = 0; r < rows; r++) {
                double sum = 0.0;
                for (int64_t a = 0; a < query_heads; a++)
                    sum += (double)own[r * query_heads + a];
                sum = isnan(sum) ? (double)INFINITY : sum;
                if (!flags[r * query_heads] && sum > most) {
                    best = r;
                    most = sum;
                }
            }
            for (int64_t a = 0; best >= 0 && a < query_heads; a++)
                flags[best * query_heads + a] = 1;
        }
    }
    return MB_OK;
}

/* |q| and |k| are summed apart: the sum over pairs of |q_c k_c| is the product of the two sums. */
int mb_cpu_heavy_channels(mb_device *device, const mb_attention *args, int32_t count, int32_t *channels,
                          void *scratch)
{
    const mb_kv *kv = &args->kv;
    int64_t dim = kv->head_dim, group = args->query_heads / kv->kv_heads;
    float *weight = scratch, row[256];
    if (dim > 256 || count < 1 || count > dim)
        return mb_cpu_fail(device, MB_E_BUG, "heavy_channels: %d of %lld channels", count, (long long)dim);
    for (int64_t h = 0; h < kv->kv_heads; h++) {
        float *own = weight + h * dim;
        memset(own, 0, (size_t)dim * sizeof *own);
        for (int64_t b = 0; b < args->rows.batch; b++) {
            double q[256] = {0}, k[256] = {0};
            for (int64_t r = 0; r < args->rows.rows; r++)
                for (int64_t g = 0; g < group; g++) {
                    int64_t at = (b * args->rows.rows + r) * args->query_heads + h * group + g;
                    mb_load_row(device->type, args->q, at * dim, dim, row);
                    for (int64_t c = 0; c < dim; c++)
                        q[c] += (double)fabsf(row[c]);
                }
            for (int64_t j = 0; j < args->rows.prefix_len[b]; j++) {
                mb_load_row(device->type, kv->k, ((b * kv->kv_heads + h) * kv->capacity + j) * dim, dim, row);
                for (int64_t c = 0; c < dim; c++)
                    k[c] += (double)fabsf(row[c]);
            }
            for (int64_t c = 0; c < dim; c++)
                own[c] += (float)(q[c] * k[c]);
        }
        int32_t found = 0;
        for (int64_t c = 0; c < dim; c++) { /* its rank decides; channels come out in order */
            int64_t better = 0;
            for (int64_t d = 0; d < dim; d++)
                better += own[d] > own[c] || (own[d] == own[c] && d < c);
            if (better < count && found < count)
                channels[h * count + found++] = (int32_t)c;
        }
        if (found < count) /* NaN in a cache: nothing ranks above anything */
            return mb_cpu_fail(device, MB_E_SAMPLE, "heavy_channels: a query or a key is not a number");
    }
    return MB_OK;
}
