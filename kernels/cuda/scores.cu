/*
 * scores.cu - arithmetic on score rows [batch][kv_heads][stride]: edges, pooling, smoothing, mixing, random,
 * recency, and budgets that only the device can compute. Same definitions as the CPU's scores.c and budget.c.
 */
#include "kernels/cuda/common.cuh"
#include "kernels/hash.h"

using namespace mb_cuda;

constexpr int THREADS = 256;


__device__ __forceinline__ int64_t prefix_of(const int32_t *prefix_len, int64_t bh, int kv_heads)
{
    return prefix_len[bh / kv_heads];
}

__global__ void edges_kernel(float *scores, int64_t stride, int kv_heads, const int32_t *prefix_len, int page,
                             int first_n, int last_n, float value)
{
    int64_t bh = blockIdx.x, n = (prefix_of(prefix_len, bh, kv_heads) + page - 1) / page;
    float *row = scores + bh * stride;
    for (int64_t i = threadIdx.x; i < first_n && i < n; i += blockDim.x)
        row[i] = value;
    for (int64_t i = (n > last_n ? n - last_n : 0) + threadIdx.x; i < n; i += blockDim.x)
        row[i] = value;
}

/* Rows of `entries` in blocks of THREADS, one row of blocks for each (sequence, KV head). */
static dim3 grid_of(const mb_scores *s, int64_t entries)
{
    return dim3(blocks_for(entries, THREADS), s->batch * s->kv_heads);
}

MB_CUDA_OPERATION(score_edges, mb_score_edges, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    edges_kernel<<<s->batch * s->kv_heads, THREADS, 0, device->stream>>>(s->values, s->stride, s->kv_heads, s->prefix_len,
                                                                        s->page, args->first,
                                                                        args->last < 0 ? 0 : args->last, args->value);
    return cudaGetLastError();
}

/* Pages behind the prefix get what adds nothing: 0 to a sum, -INFINITY to a maximum. */
__global__ void pool_kernel(const float *scores, int64_t stride, int kv_heads, const int32_t *prefix_len,
                            int64_t pages, int page, int mode, float *out, int64_t out_stride)
{
    int64_t bh = blockIdx.y, p = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= pages)
        return;
    int64_t n = prefix_of(prefix_len, bh, kv_heads), last = (p + 1) * page < n ? (p + 1) * page : n;
    const float *row = scores + bh * stride;
    double sum = 0.0;
    float most = -INFINITY;
    for (int64_t j = p * page; j < last; j++) {
        sum += (double)row[j];
        most = row[j] > most ? row[j] : most;
    }
    out[bh * out_stride + p] = mode == 0 ? (float)sum : most;
}

MB_CUDA_OPERATION(score_pool, mb_score_pool, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    if (args->page < 1)
        return cudaErrorInvalidValue;
    int64_t pages = (s->max_prefix + (int64_t)args->page - 1) / args->page;
    pages = pages < args->out_stride ? pages : args->out_stride;
    if (pages > 0)
        pool_kernel<<<grid_of(s, pages), THREADS, 0, device->stream>>>(s->values, s->stride, s->kv_heads, s->prefix_len,
                                                                       pages, args->page, args->pooling, args->out,
                                                                       args->out_stride);
    return cudaGetLastError();
}

__global__ void smooth_kernel(const float *scores, int64_t stride, int kv_heads, const int32_t *prefix_len,
                              int half, int mode, float *out)
{
    int64_t bh = blockIdx.y, j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t n = prefix_of(prefix_len, bh, kv_heads);
    if (j >= n)
        return;
    const float *row = scores + bh * stride;
    int64_t first = j > half ? j - half : 0, last = j + half + 1 < n ? j + half + 1 : n;
    double sum = 0.0;
    float most = -INFINITY;
    for (int64_t i = first; i < last; i++) {
        sum += (double)row[i];
        most = row[i] > most ? row[i] : most;
    }
    int64_t count = mode == MB_POOL_PADDED ? 2 * half + 1 : last - first;
    out[bh * stride + j] = mode == MB_POOL_MAX ? most : (float)(sum / (double)count);
}

MB_CUDA_OPERATION(score_smooth, mb_score_smooth, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    if (args->kernel < 1 || args->kernel % 2 == 0 || args->out == s->values)
        return cudaErrorInvalidValue;
    if (s->max_prefix > 0)
        smooth_kernel<<<grid_of(s, s->max_prefix), THREADS, 0, device->stream>>>(
            s->values, s->stride, s->kv_heads, s->prefix_len, args->kernel / 2, args->pooling, args->out);
    return cudaGetLastError();
}

/* A factor of 0 means that its array is not read. */
__global__ void axpby_kernel(float a, const float *x, float b, float *y, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = (a == 0.0f ? 0.0f : __fmul_rn(a, x[i])) + (b == 0.0f ? 0.0f : __fmul_rn(b, y[i]));
}

MB_CUDA_OPERATION(score_axpby, mb_score_axpby, MB_PART_SELECTION)
{
    if (args->n > 0)
        axpby_kernel<<<blocks_for(args->n, THREADS), THREADS, 0, device->stream>>>(args->a, args->x, args->b, args->y,
                                                                                  args->n);
    return cudaGetLastError();
}

__global__ void head_mean_kernel(float *scores, int64_t stride, int kv_heads, const int32_t *prefix_len)
{
    int64_t b = blockIdx.y, j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= prefix_len[b])
        return;
    float *rows = scores + b * kv_heads * stride, sum = 0.0f;
    for (int h = 0; h < kv_heads; h++)
        sum += rows[h * stride + j];
    for (int h = 0; h < kv_heads; h++)
        rows[h * stride + j] = sum / (float)kv_heads;
}

MB_CUDA_OPERATION(score_head_mean, mb_scores, MB_PART_SELECTION)
{
    if (args->max_prefix > 0)
        head_mean_kernel<<<dim3(blocks_for(args->max_prefix, THREADS), args->batch), THREADS, 0, device->stream>>>(
            args->values, args->stride, args->kv_heads, args->prefix_len);
    return cudaGetLastError();
}

__global__ void random_kernel(uint64_t seed, int64_t n, float *scores, int64_t stride)
{
    int64_t bh = blockIdx.y, j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j < n)
        scores[bh * stride + j] = mb_hash_unit(seed, (uint64_t)j);
}

MB_CUDA_OPERATION(score_random, mb_score_random, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    int64_t n = s->max_prefix < s->stride ? s->max_prefix : s->stride;
    if (n > 0)
        random_kernel<<<grid_of(s, n), THREADS, 0, device->stream>>>(args->seed, n, s->values, s->stride);
    return cudaGetLastError();
}

__global__ void recent_kernel(float *scores, int64_t stride, int kv_heads, const int32_t *prefix_len, float below,
                              float value)
{
    int64_t bh = blockIdx.y, j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t n = prefix_of(prefix_len, bh, kv_heads);
    if (j < n && scores[bh * stride + j] < below)
        scores[bh * stride + j] = value * ((float)(j + 1) / (float)(n + 1));
}

MB_CUDA_OPERATION(score_recent, mb_score_recent, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    if (s->max_prefix > 0)
        recent_kernel<<<grid_of(s, s->max_prefix), THREADS, 0, device->stream>>>(
            s->values, s->stride, s->kv_heads, s->prefix_len, args->below, args->value);
    return cudaGetLastError();
}

__global__ void every_kernel(float *scores, int64_t stride, int kv_heads, const int32_t *prefix_len, int every,
                             int first, float value)
{
    int64_t bh = blockIdx.y, i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, j = first + i * every;
    if (j < prefix_of(prefix_len, bh, kv_heads))
        scores[bh * stride + j] = value;
}

MB_CUDA_OPERATION(score_every, mb_score_every, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    if (args->every < 1 || args->first < 0)
        return cudaErrorInvalidValue;
    int64_t most = ((int64_t)s->max_prefix - args->first + args->every - 1) / args->every;
    if (s->max_prefix > args->first)
        every_kernel<<<grid_of(s, most), THREADS, 0, device->stream>>>(s->values, s->stride, s->kv_heads,
                                                                       s->prefix_len, args->every, args->first,
                                                                       args->value);
    return cudaGetLastError();
}

/* ---- budgets: a handful of numbers, one thread each ---- */

__global__ void ratio_kernel(int heads, int kv_heads, const int32_t *prefix_len, int page, double ratio, int extra,
                             int32_t *budgets)
{
    int bh = blockIdx.x * blockDim.x + threadIdx.x;
    if (bh >= heads)
        return;
    int64_t n = (prefix_of(prefix_len, bh, kv_heads) + page - 1) / page;
    int64_t budget = (int64_t)floor(ratio * (double)n) + extra;
    budgets[bh] = (int32_t)(budget < n ? budget : n);
}

MB_CUDA_OPERATION(budget_ratio, mb_budget_ratio, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    if (s->page < 1 || !(args->ratio >= 0.0 && args->ratio <= 1.0))
        return cudaErrorInvalidValue;
    int heads = s->batch * s->kv_heads;
    ratio_kernel<<<blocks_for(heads, 64), 64, 0, device->stream>>>(heads, s->kv_heads, s->prefix_len, s->page,
                                                                   args->ratio, args->extra, args->budgets);
    return cudaGetLastError();
}

__device__ double diffuseness(const float *stats, int kv_heads)
{
    double most = 0.0;
    for (int h = 0; h < kv_heads; h++) {
        double coverage = (double)stats[2 * h + 1];
        coverage = coverage > 1e-30 ? coverage : 1e-30;
        double s = (double)stats[2 * h] * (1.0 - log(coverage < 1.0 ? coverage : 1.0));
        most = s > most ? s : most;
    }
    return most;
}

__global__ void layers_kernel(const float *stats, int layers, int batch, int kv_heads, const int32_t *prefix_len,
                              int k, int k_min, int k_max, int32_t *budgets)
{
    int b = blockIdx.x;
    int64_t heads = (int64_t)batch * kv_heads;
    double sum = 0.0;
    for (int l = 0; l < layers; l++)
        sum += diffuseness(stats + (l * heads + (int64_t)b * kv_heads) * 2, kv_heads);
    for (int l = threadIdx.x; l < layers; l += blockDim.x) {
        double s = diffuseness(stats + (l * heads + (int64_t)b * kv_heads) * 2, kv_heads);
        double share = sum > 0.0 ? floor(s / sum * (double)k * layers) : k;
        share = share < k_min ? k_min : share;
        int budget = prefix_len[b] <= k || share > k_max ? k_max : (int)share;
        for (int h = 0; h < kv_heads; h++)
            budgets[l * heads + (int64_t)b * kv_heads + h] = budget;
    }
}

MB_CUDA_OPERATION(budget_layers, mb_budget_layers, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    if (args->k_min < 0 || args->k_min > args->k_max || args->k < 0)
        return cudaErrorInvalidValue;
    layers_kernel<<<s->batch, 64, 0, device->stream>>>(args->stats, args->layers, s->batch, s->kv_heads, s->prefix_len,
                                                       args->k, args->k_min, args->k_max, args->budgets);
    return cudaGetLastError();
}
