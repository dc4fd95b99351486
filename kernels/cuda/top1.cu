/*
 * top1.cu - best token and its softmax probability per row of logits, without writing the softmax.
 *
 * Two kernels: the first leaves maximum and sum of exponentials of each (row, chunk); the second folds a row's in
 * chunk order, rounds the best probability to the confidence type, and finds the lowest id that rounds to the same
 * value (ties as the reference samplers see them: kernels/cpu/top1.c).
 */
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/depend.cuh"

using namespace mb_cuda;

__device__ __forceinline__ float round_probability(mb_type confidence, float p)
{
    if (confidence == MB_BF16)
        return rounded<__nv_bfloat16>(p);
    return confidence == MB_F16 ? rounded<__half>(p) : p;
}

/* A thread's share of a chunk: eight consecutive logits at a time, LOADS of them in flight; lanes behind the end
 * hold -INFINITY. Chunks start at multiples of 8 and rows are 16-byte aligned (vocab a multiple of 8), else one by
 * one.
 */
constexpr int TOP1_THREADS = 256, TOP1_LOADS = 3, PICK_THREADS = 1024;

template <typename T, bool ALIGNED>
__device__ __forceinline__ void load_share(const T *line, int64_t at, int64_t last, float (&x)[8])
{
    if (ALIGNED && at + 8 <= last) {
        load8(line + at, x);
        return;
    }
#pragma unroll
    for (int c = 0; c < 8; c++)
        x[c] = at + c < last ? load(line + at + c) : -INFINITY;
}

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(TOP1_THREADS)
    top1_chunks(const T *logits, int64_t vocab, int64_t chunk, float *partials)
{
    __shared__ float shared[32];
    let_dependents_start();
    int64_t row = blockIdx.y, first = (int64_t)blockIdx.x * chunk;
    int64_t last = first + chunk < vocab ? first + chunk : vocab;
    const T *line = logits + row * vocab;
    float top = -INFINITY, sum = 0.0f;
    /* Running maximum and sum, rescaled when the maximum rises: one pass over memory. */
    for (int64_t part = first; part < last; part += TOP1_THREADS * 8 * TOP1_LOADS) {
        float x[TOP1_LOADS][8], most = -INFINITY;
        bool bad = false;
#pragma unroll
        for (int i = 0; i < TOP1_LOADS; i++)
            load_share<T, ALIGNED>(line, part + (i * TOP1_THREADS + (int)threadIdx.x) * 8, last, x[i]);
#pragma unroll
        for (int i = 0; i < TOP1_LOADS; i++)
#pragma unroll
            for (int c = 0; c < 8; c++) {
                most = fmaxf(most, x[i][c]);
                bad = bad || isnan(x[i][c]);
            }
        float next = fmaxf(top, most);
        if (next > -INFINITY) {
            sum = top == -INFINITY ? 0.0f : sum * expf(top - next);
#pragma unroll
            for (int i = 0; i < TOP1_LOADS; i++)
#pragma unroll
                for (int c = 0; c < 8; c++)
                    sum += expf(x[i][c] - next);
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
    }
}

/* Whether a logit counts as the best: it is, or its probability rounds to the best one's. */
__device__ __forceinline__ bool ties(float x, float top, float sum, float p, mb_type confidence)
{
    return x == top ||
           (confidence != MB_F32 && x > top - 1.0f && round_probability(confidence, expf(x - top) / sum) == p);
}

/* One block a row. A larger logit never rounds to less, so the first chunk whose maximum counts as the best holds
 * the lowest id that does: only that chunk is read again. */
template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(PICK_THREADS)
    top1_pick(const T *logits, int64_t vocab, int64_t chunk, mb_type confidence, const float *partials,
              int32_t *ids, float *probability)
{
    __shared__ int lowest;
    int64_t row = blockIdx.x;
    const T *line = logits + row * vocab;
    const float *from = partials + row * MB_TOP1_CHUNKS * 2;
    wait_for_dependency();
    static_assert(MB_TOP1_CHUNKS == 32, "a lane a chunk");
    int lane = threadIdx.x & 31;
    float most = from[2 * lane], part = from[2 * lane + 1], top = warp_max(most);
    float sum = warp_sum(most != -INFINITY || isnan(part) ? part * expf(most - top) : 0.0f);
    float p = round_probability(confidence, 1.0f / sum);
    unsigned holders = __ballot_sync(0xffffffffu, ties(most, top, sum, p, confidence));
    int64_t holder = holders ? __ffs((int)holders) - 1 : 0;
    int64_t first = holder * chunk, last = first + chunk < vocab ? first + chunk : vocab;
    int best = 0x7fffffff;
    if (threadIdx.x == 0)
        lowest = best;
    __syncthreads();
    for (int64_t at = first + (int)threadIdx.x * 8; at < last && best == 0x7fffffff; at += PICK_THREADS * 8) {
        float x[8];
        load_share<T, ALIGNED>(line, at, last, x);
#pragma unroll
        for (int c = 7; c >= 0; c--) /* downwards: the lowest id stays */
            if (ties(x[c], top, sum, p, confidence))
                best = (int)at + c;
    }
    if (best != 0x7fffffff)
        atomicMin(&lowest, best); /* integers: the order of arrival does not matter */
    __syncthreads();
    if (threadIdx.x == 0) {
        probability[row] = p;
        /* NaN logits: an id that may be used as an index, and a probability that says so. */
        ids[row] = p > 0.0f ? lowest : 0;
    }
}

extern "C" cudaError_t mb_launch_top1(mb_device *device, const mb_top1 *args)
{
    cudaStream_t stream = device->stream;
    float *partials = device->partials;
    const void *logits = args->logits;
    int64_t n = args->n, vocab = args->vocab;
    mb_type confidence = args->confidence;
    int32_t *ids = args->ids;
    float *probability = args->probability;
    if (n == 0)
        return cudaSuccess;
    int64_t chunk = ((vocab + MB_TOP1_CHUNKS - 1) / MB_TOP1_CHUNKS + 7) / 8 * 8;
    dim3 grid(MB_TOP1_CHUNKS, (unsigned)n);
    MB_WITH_TYPE(device->type, {
        const T *from = (const T *)logits;
        if (vocab % 8 == 0) {
            top1_chunks<T, true><<<grid, TOP1_THREADS, 0, stream>>>(from, vocab, chunk, partials);
            return launch_dependent(&device->chip, top1_pick<T, true>, (unsigned)n, PICK_THREADS, 0, stream, from,
                                    vocab, chunk, confidence, partials, ids, probability);
        } else {
            top1_chunks<T, false><<<grid, TOP1_THREADS, 0, stream>>>(from, vocab, chunk, partials);
            return launch_dependent(&device->chip, top1_pick<T, false>, (unsigned)n, PICK_THREADS, 0, stream, from,
                                    vocab, chunk, confidence, partials, ids, probability);
        }
    });
    return cudaGetLastError();
}
