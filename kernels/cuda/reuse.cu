/*
 * reuse.cu - keeping attention states between forwards (which rows may reuse theirs, copying rows),
 * and choices that look across heads or channels. Same definitions as the CPU's reuse.c and budget.c. All are
 * small next to a pass over the keys; counts are whole numbers, so the order of their atomic additions does not
 * matter.
 */
#include "kernels/cuda/common.cuh"

using namespace mb_cuda;

namespace {

constexpr int THREADS = 256;
constexpr int MOST_HEADS = 48;   /* of budget_heads: a histogram of 256 bins each in shared memory */

/* ---- rows ---- */

__global__ void decide_kernel(int rows, int query_heads, int kv_heads, const float *distance, const float *norm,
                              float threshold, int relative, float share, int32_t *active, int32_t *missed,
                              double *counts, double *groups)
{
    __shared__ int misses, absent;
    int group = query_heads / kv_heads, all = rows * group, b = blockIdx.x / kv_heads, h = blockIdx.x % kv_heads;
    if (threadIdx.x == 0)
        misses = absent = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < all; i += blockDim.x) {
        int64_t at = ((int64_t)b * rows + i / group) * query_heads + h * group + i % group;
        if (isinf(distance[at])) /* nothing to keep */
            atomicOr(&absent, 1);
        bool hit = distance[at] < (relative ? threshold * norm[at] : threshold);
        if (missed)
            missed[at] = !hit;
        if (!hit)
            atomicAdd(&misses, 1);
    }
    __syncthreads();
    if (threadIdx.x)
        return;
    bool again = absent || (double)misses > (double)share * (double)all;
    active[blockIdx.x] = again ? -1 : 0;
    if (counts) {
        atomicAdd(counts, (double)(all - misses));
        atomicAdd(counts + 1, (double)all);
        atomicAdd(counts + 2, again ? 1.0 : 0.0);
        atomicAdd(counts + 3, 1.0);
    }
    if (groups)
        atomicAdd(groups + (misses == 0 ? 0 : misses < all ? 1 : 2), 1.0);
}

/* One block a row of one query head; vectors are moved as 16-bit words. */
__global__ void rows_copy_kernel(int rows, int query_heads, int kv_heads, int words, const int32_t *active,
                                 const int32_t *missed, const uint16_t *src, const float *src_lse, uint16_t *dst,
                                 float *dst_lse)
{
    int64_t at = blockIdx.x, b = at / query_heads / rows, h = at % query_heads / (query_heads / kv_heads);
    if ((active && !active[b * kv_heads + h]) || (missed && !missed[at]))
        return;
    for (int i = threadIdx.x; i < words; i += blockDim.x)
        dst[at * words + i] = src[at * words + i];
    if (threadIdx.x == 0 && src_lse && dst_lse)
        dst_lse[at] = src_lse[at];
}

/* One block a sequence; a row is chosen if fewer than `count` rows are ahead of it. */
__global__ void row_top_kernel(int rows, int query_heads, const float *distance, int count, int32_t *chosen)
{
    extern __shared__ double sums[];
    int64_t first = (int64_t)blockIdx.x * rows * query_heads;
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
        double sum = 0.0;
        for (int a = 0; a < query_heads; a++)
            sum += (double)distance[first + (int64_t)r * query_heads + a];
        sums[r] = isnan(sum) ? (double)INFINITY : sum;
    }
    __syncthreads();
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
        int ahead = 0;
        for (int other = 0; other < rows; other++)
            ahead += sums[other] > sums[r] || (sums[other] == sums[r] && other < r);
        for (int a = 0; a < query_heads; a++)
            chosen[first + (int64_t)r * query_heads + a] = ahead < count;
    }
}

/* ---- scores, channels ---- */

__global__ void keep_kernel(mb_page_set kept, int kv_heads, const int32_t *prefix_len, float value, float *scores,
                            int64_t stride)
{
    int64_t bh = blockIdx.y, j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, page = j / kept.granularity;
    int count = kept.counts[bh], low = 0, high = count;
    if (j >= prefix_len[bh / kv_heads] || count < 0)
        return;
    const int32_t *own = kept.ids + bh * kept.capacity;
    while (low < high) {   /* ids ascend */
        int middle = (low + high) / 2;
        if (own[middle] < page)
            low = middle + 1;
        else
            high = middle;
    }
    if (low >= count || own[low] != page)
        scores[bh * stride + j] = value;
}

__device__ double block_total(double x, double *shared)
{
    shared[threadIdx.x] = x;
    __syncthreads();
    for (int half = blockDim.x / 2; half; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    double total = shared[0];
    __syncthreads();
    return total;
}

/* One block a channel of a KV head: sum over sequences of (sum of |q_c|) * (sum of |k_c|), or of the rows' |q_c k_c|
 * with the key of the row's own slot. */
template <typename T>
__global__ void channel_weight_kernel(mb_heavy_channels a, float *weight)
{
    __shared__ double shared[THREADS];
    int dim = a.attention.kv.head_dim, kv_heads = a.attention.kv.kv_heads, rows = a.attention.rows.rows;
    int h = blockIdx.x / dim, c = blockIdx.x % dim, group = a.attention.query_heads / kv_heads;
    const T *q = (const T *)a.attention.q;
    float sum = 0.0f;
    for (int b = 0; b < a.attention.rows.batch; b++) {
        const T *k = (const T *)a.attention.kv.k + ((int64_t)b * kv_heads + h) * a.attention.kv.capacity * dim + c;
        int64_t prefix = a.attention.rows.prefix_len[b], first = prefix + a.attention.rows.row_offset;
        double own_q = 0.0, own_k = 0.0;
        for (int i = threadIdx.x; i < rows * group; i += blockDim.x) {
            int64_t at = ((int64_t)b * rows + i / group) * a.attention.query_heads + h * group + i % group;
            double x = (double)fabsf(load(q + at * dim + c));
            own_q += a.same_token ? x * (double)fabsf(load(k + (first + i / group) * dim)) : x;
        }
        for (int64_t j = threadIdx.x; j < prefix && !a.same_token; j += blockDim.x)
            own_k += (double)fabsf(load(k + j * dim));
        double all_q = block_total(own_q, shared), all_k = block_total(own_k, shared);
        sum += (float)(a.same_token ? all_q : all_q * all_k);
    }
    if (threadIdx.x == 0)
        weight[blockIdx.x] = sum;
}

/* One block a KV head; a channel's rank decides, its place among the chosen ones is its position. */
__global__ void channel_rank_kernel(int dim, const float *weight, int count, int32_t *channels)
{
    __shared__ int chosen[256];
    const float *own = weight + (int64_t)blockIdx.x * dim;
    int c = threadIdx.x, ahead = 0, place = 0;
    for (int d = 0; c < dim && d < dim; d++)
        ahead += own[d] > own[c] || (own[d] == own[c] && d < c);
    if (c < dim)
        chosen[c] = ahead < count;
    __syncthreads();
    for (int d = 0; c < dim && d < c; d++)
        place += chosen[d];
    if (c < dim && chosen[c] && place < count)
        channels[(int64_t)blockIdx.x * count + place] = c;
}

/* ---- one budget for all heads of a sequence ---- */

/* Larger scores have larger keys; 0 = -INFINITY or NaN, never chosen. */
__device__ uint32_t key_of(float score)
{
    if (!(score > -INFINITY))
        return 0u;
    uint32_t bits = __float_as_uint(score + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Beyond its guaranteed share a head has max(0, entries at or above x - given) entries at or above the key x. The
 * largest x at which these add up to what is left is found digit by digit, with a histogram for each head. */
__global__ void heads_kernel(const float *scores, int64_t stride, int kv_heads, const int32_t *prefix_len,
                             int max_prefix, int k, int k_min, int32_t *budgets)
{
    extern __shared__ int histogram[];   /* [kv_heads][256] */
    __shared__ int above[MOST_HEADS], given[MOST_HEADS], done;
    __shared__ long long left;
    __shared__ uint32_t prefix;
    int64_t b = blockIdx.x;
    int n = prefix_len[b] < max_prefix ? prefix_len[b] : max_prefix;
    int32_t *own = budgets + b * kv_heads;
    if (threadIdx.x == 0) {
        prefix = 0u;
        done = 0;
    }
    for (int level = 0; level < 4; level++) {
        int shift = 24 - 8 * level;
        for (int i = threadIdx.x; i < kv_heads * 256; i += blockDim.x)
            histogram[i] = 0;
        __syncthreads();
        for (int h = 0; h < kv_heads; h++)
            for (int j = threadIdx.x; j < n; j += blockDim.x) {
                uint32_t key = key_of(scores[(b * kv_heads + h) * stride + j]);
                if (key && (level == 0 || key >> (shift + 8) == prefix >> (shift + 8)))
                    atomicAdd(&histogram[h * 256 + (key >> shift & 255u)], 1);
            }
        __syncthreads();
        if (threadIdx.x == 0) {
            if (level == 0) {
                long long rest = 0;
                left = (long long)k * kv_heads;
                for (int h = 0; h < kv_heads; h++) {
                    int all = 0;
                    for (int d = 0; d < 256; d++)
                        all += histogram[h * 256 + d];
                    given[h] = all < k_min ? all : k_min;
                    own[h] = all;
                    above[h] = 0;
                    left -= given[h];
                    rest += all - given[h];
                }
                done = rest <= left;
                if (!done && left <= 0) {
                    done = 1;
                    for (int h = 0; h < kv_heads; h++)
                        own[h] = given[h];
                }
            }
            int digit = 256;
            long long total = 0;
            while (!done && digit > 0 && total < left) {
                digit--;
                total = 0;
                for (int h = 0; h < kv_heads; h++) {
                    above[h] += histogram[h * 256 + digit];
                    total += above[h] > given[h] ? above[h] - given[h] : 0;
                }
            }
            for (int h = 0; !done && h < kv_heads; h++)
                above[h] -= histogram[h * 256 + digit];
            if (!done)
                prefix |= (uint32_t)digit << shift;
        }
        __syncthreads();
        if (done)
            return;
    }
    if (threadIdx.x)
        return;
    long long rest = left;   /* for entries whose key is exactly the one found: lower heads first */
    for (int h = 0; h < kv_heads; h++)
        rest -= above[h] > given[h] ? above[h] - given[h] : 0;
    for (int h = 0; h < kv_heads; h++) {
        int more = above[h] > given[h] ? above[h] - given[h] : 0;
        int with = above[h] + histogram[h * 256 + (prefix & 255u)] - given[h];
        long long ties = (with > 0 ? with : 0) - more;
        ties = ties < rest ? ties : rest;
        rest -= ties;
        own[h] = given[h] + more + (int)ties;
    }
}

} // namespace

MB_CUDA_OPERATION(reuse_decide, mb_reuse_decide, MB_PART_SELECTION)
{
    const mb_row_shape *shape = &args->shape;
    const mb_reuse *reuse = &args->reuse;
    if (shape->kv_heads < 1 || shape->query_heads % shape->kv_heads || (reuse->relative && !reuse->norm))
        return cudaErrorInvalidValue;
    decide_kernel<<<shape->batch * shape->kv_heads, THREADS, 0, device->stream>>>(
        shape->rows, shape->query_heads, shape->kv_heads, reuse->distance, reuse->norm, reuse->threshold,
        reuse->relative, reuse->share, reuse->active, reuse->missed, reuse->counts, reuse->groups);
    return cudaGetLastError();
}

MB_CUDA_OPERATION(rows_copy, mb_rows_copy, MB_PART_COPY)
{
    const mb_row_shape *shape = &args->shape;
    if (shape->kv_heads < 1 || shape->query_heads % shape->kv_heads)
        return cudaErrorInvalidValue;
    rows_copy_kernel<<<shape->batch * shape->rows * shape->query_heads, 64, 0, device->stream>>>(
        shape->rows, shape->query_heads, shape->kv_heads, shape->head_dim * (int)mb_type_size(device->type) / 2,
        args->active, args->missed, (const uint16_t *)args->src, args->src_lse, (uint16_t *)args->dst,
        args->dst_lse);
    return cudaGetLastError();
}

MB_CUDA_OPERATION(row_top, mb_row_top, MB_PART_SELECTION)
{
    const mb_row_shape *shape = &args->shape;
    if (shape->rows > 4096)
        return cudaErrorInvalidValue;
    row_top_kernel<<<shape->batch, THREADS, (size_t)shape->rows * sizeof(double), device->stream>>>(
        shape->rows, shape->query_heads, args->distance, args->count, args->chosen);
    return cudaGetLastError();
}

MB_CUDA_OPERATION(score_keep, mb_score_keep, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    const mb_page_set *kept = &args->kept;
    if (kept->granularity < 1)
        return cudaErrorInvalidValue;
    if (s->max_prefix > 0)
        keep_kernel<<<dim3((s->max_prefix + THREADS - 1) / THREADS, s->batch * s->kv_heads), THREADS, 0,
                      device->stream>>>(*kept, s->kv_heads, s->prefix_len, args->value, s->values, s->stride);
    return cudaGetLastError();
}

MB_CUDA_OPERATION(heavy_channels, mb_heavy_channels, MB_PART_SELECTION)
{
    const mb_attention *attention = &args->attention;
    const mb_kv *kv = &attention->kv;
    if (kv->head_dim > 256 || args->count < 1 || args->count > kv->head_dim)
        return cudaErrorInvalidValue;
    MB_WITH_TYPE(device->type, channel_weight_kernel<T><<<kv->kv_heads * kv->head_dim, THREADS, 0, device->stream>>>(
                                   *args, args->scratch));
    channel_rank_kernel<<<kv->kv_heads, 256, 0, device->stream>>>(kv->head_dim, args->scratch, args->count,
                                                                  args->channels);
    return cudaGetLastError();
}

MB_CUDA_OPERATION(budget_heads, mb_budget_heads, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    if (args->k < 0 || args->k_min < 0 || args->k_min > args->k || s->kv_heads > MOST_HEADS)
        return cudaErrorInvalidValue;
    heads_kernel<<<s->batch, 1024, (size_t)s->kv_heads * 256 * sizeof(int), device->stream>>>(
        s->values, s->stride, s->kv_heads, s->prefix_len, s->max_prefix, args->k, args->k_min, args->budgets);
    return cudaGetLastError();
}
