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

extern "C" cudaError_t mb_launch_score_edges(cudaStream_t stream, float *scores, int64_t score_stride,
                                             int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                                             int32_t page, int32_t first_n, int32_t last_n, float value)
{
    edges_kernel<<<batch * kv_heads, THREADS, 0, stream>>>(scores, score_stride, kv_heads, prefix_len, page,
                                                           first_n, last_n < 0 ? 0 : last_n, value);
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

extern "C" cudaError_t mb_launch_score_pool(cudaStream_t stream, const float *scores, int64_t score_stride,
                                            int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                                            int32_t max_prefix, int32_t page, int32_t mode, float *out,
                                            int64_t out_stride)
{
    int64_t pages = (max_prefix + (int64_t)page - 1) / page;
    pages = pages < out_stride ? pages : out_stride;
    if (pages > 0)
        pool_kernel<<<dim3(blocks_for(pages, THREADS), batch * kv_heads), THREADS, 0, stream>>>(
            scores, score_stride, kv_heads, prefix_len, pages, page, mode, out, out_stride);
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
    out[bh * stride + j] = mode == 0 ? (float)(sum / (double)(last - first)) : most;
}

extern "C" cudaError_t mb_launch_score_smooth(cudaStream_t stream, const float *scores, int64_t score_stride,
                                              int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                                              int32_t max_prefix, int32_t kernel, int32_t mode, float *out)
{
    if (kernel < 1 || kernel % 2 == 0 || out == scores)
        return cudaErrorInvalidValue;
    if (max_prefix > 0)
        smooth_kernel<<<dim3(blocks_for(max_prefix, THREADS), batch * kv_heads), THREADS, 0, stream>>>(
            scores, score_stride, kv_heads, prefix_len, kernel / 2, mode, out);
    return cudaGetLastError();
}

/* A factor of 0 means that its array is not read. */
__global__ void axpby_kernel(float a, const float *x, float b, float *y, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = (a == 0.0f ? 0.0f : __fmul_rn(a, x[i])) + (b == 0.0f ? 0.0f : __fmul_rn(b, y[i]));
}

extern "C" cudaError_t mb_launch_score_axpby(cudaStream_t stream, float a, const float *x, float b, float *y,
                                             int64_t n)
{
    if (n > 0)
        axpby_kernel<<<blocks_for(n, THREADS), THREADS, 0, stream>>>(a, x, b, y, n);
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

extern "C" cudaError_t mb_launch_score_head_mean(cudaStream_t stream, float *scores, int64_t score_stride,
                                                 int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                                                 int32_t max_prefix)
{
    if (max_prefix > 0)
        head_mean_kernel<<<dim3(blocks_for(max_prefix, THREADS), batch), THREADS, 0, stream>>>(
            scores, score_stride, kv_heads, prefix_len);
    return cudaGetLastError();
}

__global__ void random_kernel(uint64_t seed, int64_t n, float *scores, int64_t stride)
{
    int64_t bh = blockIdx.y, j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j < n)
        scores[bh * stride + j] = mb_hash_unit(seed, (uint64_t)j);
}

extern "C" cudaError_t mb_launch_score_random(cudaStream_t stream, uint64_t seed, int32_t batch, int32_t kv_heads,
                                              int32_t max_prefix, float *scores, int64_t score_stride)
{
    int64_t n = max_prefix < score_stride ? max_prefix : score_stride;
    if (n > 0)
        random_kernel<<<dim3(blocks_for(n, THREADS), batch * kv_heads), THREADS, 0, stream>>>(seed, n, scores,
                                                                                             score_stride);
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

extern "C" cudaError_t mb_launch_score_recent(cudaStream_t stream, float *scores, int64_t score_stride,
                                              int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                                              int32_t max_prefix, float below, float value)
{
    if (max_prefix > 0)
        recent_kernel<<<dim3(blocks_for(max_prefix, THREADS), batch * kv_heads), THREADS, 0, stream>>>(
            scores, score_stride, kv_heads, prefix_len, below, value);
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

extern "C" cudaError_t mb_launch_budget_ratio(cudaStream_t stream, int32_t batch, int32_t kv_heads,
                                              const int32_t *prefix_len, int32_t page, double ratio, int32_t extra,
                                              int32_t *budgets)
{
    if (page < 1 || !(ratio >= 0.0 && ratio <= 1.0))
        return cudaErrorInvalidValue;
    int heads = batch * kv_heads;
    ratio_kernel<<<blocks_for(heads, 64), 64, 0, stream>>>(heads, kv_heads, prefix_len, page, ratio, extra,
                                                           budgets);
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

extern "C" cudaError_t mb_launch_budget_layers(cudaStream_t stream, const float *stats, int32_t layers,
                                               int32_t batch, int32_t kv_heads, const int32_t *prefix_len,
                                               int32_t k, int32_t k_min, int32_t k_max, int32_t *budgets)
{
    if (k_min < 0 || k_min > k_max || k < 0)
        return cudaErrorInvalidValue;
    layers_kernel<<<batch, 64, 0, stream>>>(stats, layers, batch, kv_heads, prefix_len, k, k_min, k_max, budgets);
    return cudaGetLastError();
}
