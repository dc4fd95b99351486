/*
 * router.cu - which experts a row goes to: logits of the gate in fp32, scores, group-limited top-k, weights.
 *
 * A logit is summed by one warp in an order that depends on the width alone: equal rows of the gate give equal
 * bits, so that a tie is a tie. At 32 rows of LLaDA2.0 mini the gate is 1 MB of the layer's 1 GB, so plain fp32
 * multiply-adds do; a warp reads a gate row once for eight rows.
 */
#include "kernels/cuda/common.cuh"

using namespace mb_cuda;

constexpr int LOGIT_WARPS = 8, LOGIT_ROWS = 8, CHOICE_WARPS = 2;

/* Eight consecutive elements, or fewer at the end of a row: missing ones are 0. */
template <typename T, bool ALIGNED>
__device__ __forceinline__ void load_eight(const T *line, int64_t at, int64_t width, float (&x)[8])
{
    if constexpr (ALIGNED) {
        load8(line + at, x);
    } else {
#pragma unroll
        for (int c = 0; c < 8; c++)
            x[c] = at + c < width ? load(line + at + c) : 0.0f;
    }
}

/* Block (x, y): experts 8x .. 8x+7, one a warp; rows 8y .. 8y+7. ALIGNED: width is a multiple of 8. */
template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(LOGIT_WARPS * 32)
    router_logits(const T *hidden, const T *weight, int64_t n, int64_t width, int32_t experts, int round_logits,
                  float *logits)
{
    int64_t expert = (int64_t)blockIdx.x * LOGIT_WARPS + (threadIdx.x >> 5);
    int64_t first = (int64_t)blockIdx.y * LOGIT_ROWS;
    int lane = threadIdx.x & 31;
    float sum[LOGIT_ROWS] = {0.0f};
    if (expert >= experts)
        return;
    for (int64_t at = lane * 8; at < width; at += 256) {
        float w[8], h[8];
        load_eight<T, ALIGNED>(weight + expert * width, at, width, w);
#pragma unroll
        for (int r = 0; r < LOGIT_ROWS; r++) {
            int64_t row = first + r < n ? first + r : n - 1; /* rows behind the end repeat the last one */
            load_eight<T, ALIGNED>(hidden + row * width, at, width, h);
#pragma unroll
            for (int c = 0; c < 8; c++)
                sum[r] = fmaf(h[c], w[c], sum[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < LOGIT_ROWS; r++) {
        float z = warp_sum(sum[r]);
        if (lane == 0 && first + r < n)
            logits[(first + r) * experts + expert] = round_logits ? rounded<T>(z) : z;
    }
}

extern "C" cudaError_t mb_launch_router_logits(cudaStream_t stream, mb_type type, const mb_router *args)
{
    if (args->experts < 1 || args->experts > MB_EXPERTS_MAX || args->width < 1)
        return cudaErrorInvalidValue;
    /* Rows are the grid's second dimension, 65535 at most: longer inputs go in pieces. */
    for (int64_t row = 0; row < args->n; row += 65535 * LOGIT_ROWS) {
        int64_t rows = args->n - row < 65535 * LOGIT_ROWS ? args->n - row : 65535 * LOGIT_ROWS;
        dim3 grid(blocks_for(args->experts, LOGIT_WARPS), blocks_for(rows, LOGIT_ROWS));
        const char *hidden = (const char *)args->hidden + (size_t)(row * args->width) * mb_type_size(type);
        float *logits = args->logits + row * args->experts;
        if (args->width % 8 == 0)
            MB_WITH_TYPE(type, router_logits<T, true><<<grid, LOGIT_WARPS * 32, 0, stream>>>(
                                   (const T *)hidden, (const T *)args->weight, rows, args->width, args->experts,
                                   args->round_logits, logits));
        else
            MB_WITH_TYPE(type, router_logits<T, false><<<grid, LOGIT_WARPS * 32, 0, stream>>>(
                                   (const T *)hidden, (const T *)args->weight, rows, args->width, args->experts,
                                   args->round_logits, logits));
    }
    return cudaGetLastError();
}

/* A value's rank as an integer: higher is better; NaN below every number, both zeros equal, 0 is left for "out".
 */
__device__ __forceinline__ uint32_t rank_of(float x)
{
    if (isnan(x))
        return 1u;
    uint32_t bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Index of the best of values[0 .. count) whose flag `in` is set; ties: lower index. All lanes get it. */
__device__ __forceinline__ int best_of(const float *values, const unsigned char *in, int count, int lane)
{
    unsigned long long best = 0;
    for (int i = lane; i < count; i += 32) {
        unsigned long long key =
            in[i] ? (unsigned long long)rank_of(values[i]) << 32 | (0xffffffffu - (uint32_t)i) : 0;
        best = key > best ? key : best;
    }
    for (int offset = 16; offset; offset >>= 1) {
        unsigned long long other = __shfl_xor_sync(0xffffffffu, best, offset);
        best = other > best ? other : best;
    }
    return (int)(0xffffffffu - (uint32_t)best);
}

/* What router_choice needs, by value. */
struct ChoiceArgs {
    const float *logits, *bias;
    int32_t *ids;
    float *weights, scale;
    int64_t n;
    int32_t experts, top_k, groups, groups_kept, sigmoid, round_weights, normalise;
};

/* Scores of one row: softmax or sigmoid of the logits, and what the choice is made by. */
__device__ __forceinline__ void score_row(const ChoiceArgs &a, const float *z, float *score, float *choice,
                                          int lane)
{
    float top = -INFINITY, sum = 0.0f;
    if (!a.sigmoid) {
        for (int e = lane; e < a.experts; e += 32)
            top = fmaxf(top, z[e]);
        top = warp_max(top);
        for (int e = lane; e < a.experts; e += 32)
            sum += score[e] = expf(z[e] - top);
        sum = warp_sum(sum);
    }
    for (int e = lane; e < a.experts; e += 32) {
        score[e] = a.sigmoid ? 1.0f / (1.0f + expf(-z[e])) : score[e] / sum;
        choice[e] = a.bias ? score[e] + a.bias[e] : score[e];
    }
}

/* One warp a row. */
template <typename T> __global__ void __launch_bounds__(CHOICE_WARPS * 32) router_choice(ChoiceArgs a)
{
    __shared__ float scores[CHOICE_WARPS][MB_EXPERTS_MAX], choices[CHOICE_WARPS][MB_EXPERTS_MAX];
    __shared__ float groups[CHOICE_WARPS][MB_EXPERTS_MAX];
    __shared__ unsigned char open[CHOICE_WARPS][MB_EXPERTS_MAX], waiting[CHOICE_WARPS][MB_EXPERTS_MAX];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int64_t row = (int64_t)blockIdx.x * CHOICE_WARPS + warp;
    if (row >= a.n)
        return;
    float *score = scores[warp], *choice = choices[warp], *group = groups[warp];
    unsigned char *in = open[warp], *left = waiting[warp];
    int size = a.experts / a.groups;
    score_row(a, a.logits + row * a.experts, score, choice, lane);
    for (int e = lane; e < a.experts; e += 32)
        in[e] = a.groups == 1;
    __syncwarp();
    if (a.groups > 1) {
        for (int g = lane; g < a.groups; g += 32) {
            const float *c = choice + g * size;
            int first = 0, second = -1;
            for (int i = 1; i < size; i++)
                first = rank_of(c[i]) > rank_of(c[first]) ? i : first;
            for (int i = 0; i < size; i++)
                if (i != first && (second < 0 || rank_of(c[i]) > rank_of(c[second])))
                    second = i;
            group[g] = second < 0 ? c[first] : c[first] + c[second];
            left[g] = 1;
        }
        __syncwarp();
        for (int round = 0; round < a.groups_kept; round++) {
            int g = best_of(group, left, a.groups, lane);
            for (int i = lane; i < size; i += 32)
                in[g * size + i] = 1;
            __syncwarp();
            if (lane == 0)
                left[g] = 0;
            __syncwarp();
        }
    }
    float sum = 0.0f, mine = 0.0f;
    int expert = 0;
    for (int k = 0; k < a.top_k; k++) {
        int best = best_of(choice, in, a.experts, lane);
        float s = score[best];
        sum += s;
        if (lane == k) {
            expert = best;
            mine = s;
        }
        __syncwarp();
        if (lane == 0)
            in[best] = 0;
        __syncwarp();
    }
    if (lane < a.top_k) {
        float w = (a.normalise ? mine / (sum + 1e-20f) : mine) * a.scale;
        a.ids[row * a.top_k + lane] = expert;
        a.weights[row * a.top_k + lane] = a.round_weights ? rounded<T>(w) : w;
    }
}

extern "C" cudaError_t mb_launch_router_choice(cudaStream_t stream, mb_type type, const mb_router *args)
{
    static_assert(MB_TOP_EXPERTS_MAX <= 32, "a lane holds one choice");
    if (args->groups < 1 || args->experts % args->groups || args->groups_kept < 1 ||
        args->groups_kept > args->groups || args->top_k < 1 || args->top_k > MB_TOP_EXPERTS_MAX ||
        args->top_k > args->experts / args->groups * args->groups_kept)
        return cudaErrorInvalidValue;
    if (args->n == 0)
        return cudaSuccess;
    ChoiceArgs a = {args->logits,
                    args->bias,
                    args->ids,
                    args->weights,
                    args->scale,
                    args->n,
                    args->experts,
                    args->top_k,
                    args->groups,
                    args->groups_kept,
                    args->score == MB_SCORE_SIGMOID,
                    args->round_weights,
                    args->normalise};
    MB_WITH_TYPE(type, router_choice<T><<<blocks_for(args->n, CHOICE_WARPS), CHOICE_WARPS * 32, 0, stream>>>(a));
    return cudaGetLastError();
}
