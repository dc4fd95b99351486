/*
 * top1.cu - best token and its softmax probability per row of logits, without writing the softmax.
 *
 * Two kernels over (row, chunk): the first leaves maximum and sum of exponentials of each chunk; the second folds
 * them in chunk order, rounds the best probability to the confidence type, and finds the lowest id that rounds to
 * the same value (ties as the reference samplers see them, models.md 2.7). The minimum of ids is an integer
 * atomic, so the order of arrival does not matter.
 */
#include "kernels/cuda/common.cuh"

using namespace mb_cuda;

__device__ __forceinline__ float round_probability(mb_type confidence, float p)
{
    if (confidence == MB_BF16)
        return rounded<__nv_bfloat16>(p);
    return confidence == MB_F16 ? __half2float(__float2half_rn(p)) : p;
}

template <typename T>
__global__ void top1_chunks(const T *logits, int64_t vocab, int64_t chunk, float *partials, int32_t *ids)
{
    __shared__ float shared[32];
    int64_t row = blockIdx.y, first = (int64_t)blockIdx.x * chunk;
    int64_t last = first + chunk < vocab ? first + chunk : vocab;
    const T *line = logits + row * vocab;
    float top = -INFINITY, sum = 0.0f;
    for (int64_t j = first + threadIdx.x; j < last; j += blockDim.x)
        top = fmaxf(top, load(line + j));
    top = warp_max(top);
    if ((threadIdx.x & 31) == 0)
        shared[threadIdx.x >> 5] = top;
    __syncthreads();
    top = warp_max((threadIdx.x & 31) < blockDim.x / 32 ? shared[threadIdx.x & 31] : -INFINITY);
    for (int64_t j = first + threadIdx.x; j < last; j += blockDim.x)
        sum += expf(load(line + j) - top);
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        float *to = partials + (row * MB_TOP1_CHUNKS + blockIdx.x) * 2;
        to[0] = top;
        to[1] = first < last ? sum : 0.0f;
        if (blockIdx.x == 0)
            ids[row] = 0x7fffffff;
    }
}

template <typename T>
__global__ void top1_pick(const T *logits, int64_t vocab, int64_t chunk, mb_type confidence, const float *partials,
                          int32_t *ids, float *probability)
{
    int64_t row = blockIdx.y, first = (int64_t)blockIdx.x * chunk;
    int64_t last = first + chunk < vocab ? first + chunk : vocab;
    const T *line = logits + row * vocab;
    const float *from = partials + row * MB_TOP1_CHUNKS * 2;
    float top = -INFINITY, sum = 0.0f;
    for (int c = 0; c < MB_TOP1_CHUNKS; c++)
        top = fmaxf(top, from[2 * c]);
    for (int c = 0; c < MB_TOP1_CHUNKS; c++)
        if (from[2 * c + 1] != 0.0f)
            sum += from[2 * c + 1] * expf(from[2 * c] - top);
    float p = round_probability(confidence, 1.0f / sum);
    int best = 0x7fffffff;
    for (int64_t j = first + threadIdx.x; j < last && best == 0x7fffffff; j += blockDim.x) {
        float l = load(line + j);
        if (l == top || (confidence != MB_F32 && l > top - 1.0f &&
                         round_probability(confidence, expf(l - top) / sum) == p))
            best = (int)j;
    }
    for (int offset = 16; offset; offset >>= 1)
        best = min(best, __shfl_xor_sync(0xffffffffu, best, offset));
    if ((threadIdx.x & 31) == 0 && best != 0x7fffffff)
        atomicMin(ids + row, best);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        probability[row] = p;
        if (!(p > 0.0f)) /* NaN logits: an id that may be used as an index, and a probability that says so */
            atomicMin(ids + row, 0);
    }
}

extern "C" cudaError_t mb_launch_top1(cudaStream_t stream, mb_type type, const void *logits, int64_t n, int64_t vocab,
                                      mb_type confidence, float *partials, int32_t *ids, float *probability)
{
    if (n == 0)
        return cudaSuccess;
    int64_t chunk = (vocab + MB_TOP1_CHUNKS - 1) / MB_TOP1_CHUNKS;
    dim3 grid(MB_TOP1_CHUNKS, (unsigned)n);
    MB_WITH_TYPE(type, top1_chunks<T><<<grid, 256, 0, stream>>>((const T *)logits, vocab, chunk, partials, ids);
                 top1_pick<T><<<grid, 256, 0, stream>>>((const T *)logits, vocab, chunk, confidence, partials, ids,
                                                        probability));
    return cudaGetLastError();
}
