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

/* A thread's share of a chunk: eight consecutive logits at a time; lanes behind the end hold
 * -INFINITY. Chunks start at multiples of 8 and rows are 16-byte aligned (vocab a multiple of 8), else one by one.
 */
constexpr int TOP1_THREADS = 256;

template <typename T, bool ALIGNED>
__device__ __forceinline__ void load_share(const T *line, int64_t first, int64_t last, int64_t part, float (&x)[8])
{
    int64_t at = first + (part * TOP1_THREADS + threadIdx.x) * 8;
    if (ALIGNED && at + 8 <= last) {
        load8(line + at, x);
        return;
    }
    for (int c = 0; c < 8; c++)
        x[c] = at + c < last ? load(line + at + c) : -INFINITY;
}

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(TOP1_THREADS)
    top1_chunks(const T *logits, int64_t vocab, int64_t chunk, float *partials, int32_t *ids)
{
    __shared__ float shared[32];
    int64_t row = blockIdx.y, first = (int64_t)blockIdx.x * chunk;
    int64_t last = first + chunk < vocab ? first + chunk : vocab;
    const T *line = logits + row * vocab;
    float top = -INFINITY, sum = 0.0f, x[8];
    /* Running maximum and sum, rescaled when the maximum rises: one pass over memory. */
    for (int64_t part = 0; part * TOP1_THREADS * 8 < chunk; part++) {
        load_share<T, ALIGNED>(line, first, last, part, x);
        float most = x[0];
        bool bad = false;
        for (int c = 0; c < 8; c++) {
            most = fmaxf(most, x[c]);
            bad = bad || isnan(x[c]);
        }
        float next = fmaxf(top, most);
        if (next > -INFINITY) {
            sum = top == -INFINITY ? 0.0f : sum * expf(top - next);
            for (int c = 0; c < 8; c++)
                sum += expf(x[c] - next);
            top = next;
        }
        sum = bad ? NAN : sum;
    }
    float best = warp_max(top);
    if ((threadIdx.x & 31) == 0)
        shared[threadIdx.x >> 5] = best;
    __syncthreads();
    best = warp_max((threadIdx.x & 31) < TOP1_THREADS / 32 ? shared[threadIdx.x & 31] : -INFINITY);
    sum = block_sum(top == -INFINITY ? sum : sum * expf(top - best), shared);
    if (threadIdx.x == 0) {
        float *to = partials + (row * MB_TOP1_CHUNKS + blockIdx.x) * 2;
        to[0] = best;
        to[1] = sum;
        if (blockIdx.x == 0)
            ids[row] = 0x7fffffff;
    }
}

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(TOP1_THREADS)
    top1_pick(const T *logits, int64_t vocab, int64_t chunk, mb_type confidence, const float *partials,
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
        if (from[2 * c] != -INFINITY || isnan(from[2 * c + 1]))
            sum += from[2 * c + 1] * expf(from[2 * c] - top);
    float p = round_probability(confidence, 1.0f / sum);
    int best = 0x7fffffff;
    float x[8];
    for (int64_t part = 0; part * TOP1_THREADS * 8 < chunk && best == 0x7fffffff; part++) {
        load_share<T, ALIGNED>(line, first, last, part, x);
        for (int c = 7; c >= 0; c--) /* downwards: the lowest id stays */
            if (x[c] == top || (confidence != MB_F32 && x[c] > top - 1.0f &&
                                round_probability(confidence, expf(x[c] - top) / sum) == p))
                best = (int)(first + (part * TOP1_THREADS + threadIdx.x) * 8 + c);
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

extern "C" cudaError_t mb_launch_top1(cudaStream_t stream, mb_type type, const void *logits, int64_t n,
                                      int64_t vocab, mb_type confidence, float *partials, int32_t *ids,
                                      float *probability)
{
    if (n == 0)
        return cudaSuccess;
    int64_t chunk = ((vocab + MB_TOP1_CHUNKS - 1) / MB_TOP1_CHUNKS + 7) / 8 * 8;
    dim3 grid(MB_TOP1_CHUNKS, (unsigned)n);
    MB_WITH_TYPE(type, {
        const T *from = (const T *)logits;
        if (vocab % 8 == 0) {
            top1_chunks<T, true><<<grid, TOP1_THREADS, 0, stream>>>(from, vocab, chunk, partials, ids);
            top1_pick<T, true>
                <<<grid, TOP1_THREADS, 0, stream>>>(from, vocab, chunk, confidence, partials, ids, probability);
        } else {
            top1_chunks<T, false><<<grid, TOP1_THREADS, 0, stream>>>(from, vocab, chunk, partials, ids);
            top1_pick<T, false>
                <<<grid, TOP1_THREADS, 0, stream>>>(from, vocab, chunk, confidence, partials, ids, probability);
        }
    });
    return cudaGetLastError();
}
