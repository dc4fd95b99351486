/*
 * soft.cu - capped logits, and the embedding that a row of logits expects (self-conditioning of a canvas).
 *
 * Plain kernels: the expectation is a product with the whole table, 64 columns of a row a block, in the order of the
 * vocabulary. Roundings as in the CPU backend's soft.c.
 */
#include "kernels/cuda/common.cuh"

using namespace mb_cuda;

template <typename T> __global__ void softcap_kernel(T *values, int64_t n, float cap)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        store(values + i, tanhf(load(values + i) / cap) * cap);
}

MB_CUDA_OPERATION(softcap, mb_softcap, MB_PART_ELEMENTWISE)
{
    if (!(args->cap > 0.0f) || args->n < 0)
        return cudaErrorInvalidValue;
    if (args->n == 0)
        return cudaSuccess;
    MB_WITH_TYPE(device->type, softcap_kernel<T><<<blocks_for(args->n, 256), 256, 0, device->stream>>>(
                                   (T *)args->values, args->n, args->cap));
    return cudaGetLastError();
}

constexpr int SHARE_THREADS = 512, COLUMNS = 64, LANES = 4;

/* One block a row: its probabilities, rounded to T. */
template <typename T>
__global__ void __launch_bounds__(SHARE_THREADS)
shares_kernel(const T *logits, int64_t vocab, const float *temperature, float *shares)
{
    __shared__ float part[32];
    __shared__ float most;
    const T *from = logits + blockIdx.x * vocab;
    float *to = shares + blockIdx.x * vocab, top = -INFINITY, sum = 0.0f;
    for (int64_t i = threadIdx.x; i < vocab; i += SHARE_THREADS)
        top = fmaxf(top, rounded<T>(load(from + i) / *temperature));
    top = warp_max(top);
    if ((threadIdx.x & 31) == 0)
        part[threadIdx.x >> 5] = top;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < SHARE_THREADS / 32; w++)
            top = fmaxf(top, part[w]);
        most = top;
    }
    __syncthreads();
    top = most;
    for (int64_t i = threadIdx.x; i < vocab; i += SHARE_THREADS) {
        float e = expf(rounded<T>(load(from + i) / *temperature) - top);
        to[i] = e;
        sum += e;
    }
    sum = block_sum(sum, part);
    for (int64_t i = threadIdx.x; i < vocab; i += SHARE_THREADS)
        to[i] = rounded<T>(to[i] / sum);
}

/* Grid: (columns, rows); block: 64 columns by 4 shares of the vocabulary. */
template <typename T>
__global__ void expect_kernel(const float *shares, int64_t vocab, int64_t width, const T *table, float scale, T *out)
{
    __shared__ float sums[LANES][COLUMNS];
    int64_t column = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    const float *p = shares + blockIdx.y * vocab;
    float sum = 0.0f;
    for (int64_t i = threadIdx.y; i < vocab && column < width; i += LANES)
        if (p[i] != 0.0f)
            sum += p[i] * load(table + i * width + column);
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        for (int k = 1; k < LANES; k++)
            sum += sums[k][threadIdx.x];
        store(out + blockIdx.y * width + column, rounded<T>(sum) * scale);
    }
}

MB_CUDA_OPERATION(soft_embed, mb_soft_embed, MB_PART_ELEMENTWISE)
{
    if (args->n < 0 || args->n > 65535 || args->vocab < 1 || args->width < 1)
        return cudaErrorInvalidValue;
    if (args->n == 0)
        return cudaSuccess;
    float *shares = (float *)args->scratch;
    MB_WITH_TYPE(device->type, shares_kernel<T><<<(unsigned)args->n, SHARE_THREADS, 0, device->stream>>>(
                                   (const T *)args->logits, args->vocab, args->temperature, shares));
    dim3 grid(blocks_for(args->width, COLUMNS), (unsigned)args->n);
    MB_WITH_TYPE(device->type, expect_kernel<T><<<grid, dim3(COLUMNS, LANES), 0, device->stream>>>(
                                   shares, args->vocab, args->width, (const T *)args->table, args->scale,
                                   (T *)args->out));
    return cudaGetLastError();
}
