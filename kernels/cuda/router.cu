/*
 * router.cu - which experts a row goes to: logits of the gate in fp32, scores, group-limited top-k, weights.
 *
 * A logit is summed by one warp in an order that depends on the width alone: equal rows of the gate give equal
 * bits, so that a tie is a tie. At 32 rows of LLaDA2.0 mini the gate is 1 MB of the layer's 1 GB, so plain fp32
 * multiply-adds do: few rows are spread over the chip, of many a warp takes eight against four gate rows, so that
 * widening to fp32 costs less than the products.
 */
#include "kernels/cuda/common.cuh"

using namespace mb_cuda;

constexpr int LOGIT_WARPS = 8, CHOICE_WARPS = 2;
constexpr int FEW_ROWS = 4, MANY_ROWS = 8, MANY_EXPERTS = 4, MANY_FROM = 128; /* rows from which a call has many */

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

/* Block (x, y): rows y * ROWS ..; of LOGIT_WARPS * EXPERTS experts each warp takes EXPERTS. ALIGNED: width is a
 * multiple of 8. */
template <typename T, bool ALIGNED, int ROWS, int EXPERTS>
__global__ void __launch_bounds__(LOGIT_WARPS * 32)
    router_logits(const T *hidden, const T *weight, int64_t n, int64_t width, int32_t experts, int round_logits,
                  float *logits)
{
    int64_t expert = ((int64_t)blockIdx.x * LOGIT_WARPS + (threadIdx.x >> 5)) * EXPERTS;
    int64_t first = (int64_t)blockIdx.y * ROWS;
    int lane = threadIdx.x & 31;
    float sum[ROWS][EXPERTS] = {};
    const T *h_line[ROWS], *w_line[EXPERTS];
    if (expert >= experts)
        return;
#pragma unroll
    for (int r = 0; r < ROWS; r++) /* rows behind the end repeat the last one */
        h_line[r] = hidden + (first + r < n ? first + r : n - 1) * width;
#pragma unroll
    for (int e = 0; e < EXPERTS; e++)
        w_line[e] = weight + (expert + e < experts ? expert + e : experts - 1) * width;
#pragma unroll(EXPERTS == 1 ? 2 : 1)
    for (int64_t at = lane * 8; at < width; at += 256) {
        float w[EXPERTS][8], h[ROWS][8];
#pragma unroll
        for (int e = 0; e < EXPERTS; e++)
            load_eight<T, ALIGNED>(w_line[e], at, width, w[e]);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            load_eight<T, ALIGNED>(h_line[r], at, width, h[r]);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int e = 0; e < EXPERTS; e++)
#pragma unroll
                for (int c = 0; c < 8; c++)
                    sum[r][e] = fmaf(h[r][c], w[e][c], sum[r][e]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int e = 0; e < EXPERTS; e++) {
            float z = warp_sum(sum[r][e]);
            if (lane == 0 && first + r < n && expert + e < experts)
                logits[(first + r) * experts + expert + e] = round_logits ? rounded<T>(z) : z;
        }
}

template <typename T, bool ALIGNED>
static void launch_logits(cudaStream_t stream, const mb_router *args, int64_t row, int64_t rows)
{
    const T *hidden = (const T *)args->hidden + row * args->width, *weight = (const T *)args->weight;
    float *logits = args->logits + row * args->experts;
    if (args->n >= MANY_FROM) {
        dim3 grid(blocks_for(args->experts, LOGIT_WARPS * MANY_EXPERTS), blocks_for(rows, MANY_ROWS));
        router_logits<T, ALIGNED, MANY_ROWS, MANY_EXPERTS><<<grid, LOGIT_WARPS * 32, 0, stream>>>(
            hidden, weight, rows, args->width, args->experts, args->round_logits, logits);
    } else {
        dim3 grid(blocks_for(args->experts, LOGIT_WARPS), blocks_for(rows, FEW_ROWS));
        router_logits<T, ALIGNED, FEW_ROWS, 1><<<grid, LOGIT_WARPS * 32, 0, stream>>>(
            hidden, weight, rows, args->width, args->experts, args->round_logits, logits);
    }
}

extern "C" cudaError_t mb_launch_router_logits(cudaStream_t stream, mb_type type, const mb_router *args)
{
    constexpr int64_t MOST =
        65535 * FEW_ROWS; /* rows are the grid's second dimension: longer inputs go in pieces */
    if (args->experts < 1 || args->experts > MB_EXPERTS_MAX || args->width < 1)
        return cudaErrorInvalidValue;
    for (int64_t row = 0; row < args->n; row += MOST) {
        int64_t rows = args->n - row < MOST ? args->n - row : MOST;
        if (args->width % 8 == 0)
            MB_WITH_TYPE(type, launch_logits<T, true>(stream, args, row, rows));
        else
            MB_WITH_TYPE(type, launch_logits<T, false>(stream, args, row, rows));
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

/* Repeatedly the best of `count` ranks in shared memory, ties to the lower index. Lane l owns entries l, l + 32,
 * .. and keeps the best of them, so that taking one costs its owner alone another look. */
struct Contest {
    uint32_t *ranks; /* 0: not (or no longer) in it */
    int count, lane, index;
    uint32_t rank;

    __device__ __forceinline__ void look()
    {
        rank = 0;
        index = lane;
        for (int i = lane; i < count; i += 32)
            if (ranks[i] > rank) {
                rank = ranks[i];
                index = i;
            }
    }
    /* The winner leaves the contest; all lanes get its index. */
    __device__ __forceinline__ int take()
    {
        uint32_t most = __reduce_max_sync(0xffffffffu, rank);
        int winner = (int)__reduce_min_sync(0xffffffffu, rank == most ? (uint32_t)index : 0xffffffffu);
        if (winner % 32 == lane) {
            ranks[winner] = 0;
            look();
        }
        return winner;
    }
};

/* What router_choice needs, by value. */
struct ChoiceArgs {
    const float *logits, *bias;
    int32_t *ids;
    float *weights, scale;
    int64_t n;
    int32_t experts, top_k, groups, groups_kept, sigmoid, round_weights, normalise;
    const void *expert_scale; /* NULL, or [experts] of T */
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

/* What a group of experts counts: the sum of its two largest values, or its only one. `start` turns the order of
 * reading, so that lanes with a group each do not meet in one bank. */
__device__ __forceinline__ float group_value(const float *c, int size, int start)
{
    int at = start % size;
    float first = c[at], second = 0.0f;
    bool two = false;
    for (int i = 1; i < size; i++) {
        at = at + 1 < size ? at + 1 : 0;
        float x = c[at];
        if (rank_of(x) > rank_of(first)) {
            second = first;
            first = x;
        } else if (!two || rank_of(x) > rank_of(second)) {
            second = x;
        }
        two = true;
    }
    return two ? first + second : first;
}

/* One warp a row. */
template <typename T> __global__ void __launch_bounds__(CHOICE_WARPS * 32) router_choice(ChoiceArgs a)
{
    __shared__ float scores[CHOICE_WARPS][MB_EXPERTS_MAX], choices[CHOICE_WARPS][MB_EXPERTS_MAX];
    __shared__ uint32_t ranks[CHOICE_WARPS][MB_EXPERTS_MAX], groups[CHOICE_WARPS][MB_EXPERTS_MAX];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int64_t row = (int64_t)blockIdx.x * CHOICE_WARPS + warp;
    if (row >= a.n)
        return;
    float *score = scores[warp], *choice = choices[warp];
    int size = a.experts / a.groups;
    score_row(a, a.logits + row * a.experts, score, choice, lane);
    for (int e = lane; e < a.experts; e += 32)
        ranks[warp][e] = a.groups == 1 ? rank_of(choice[e]) : 0;
    __syncwarp();
    if (a.groups > 1) {
        for (int g = lane; g < a.groups; g += 32)
            groups[warp][g] = rank_of(group_value(choice + g * size, size, g));
        __syncwarp();
        Contest contest = {groups[warp], a.groups, lane, 0, 0};
        contest.look();
        for (int round = 0; round < a.groups_kept; round++) {
            int g = contest.take();
            for (int i = lane; i < size; i += 32)
                ranks[warp][g * size + i] = rank_of(choice[g * size + i]);
        }
        __syncwarp();
    }
    Contest contest = {ranks[warp], a.experts, lane, 0, 0};
    contest.look();
    float sum = 0.0f, mine = 0.0f;
    int expert = 0;
    for (int k = 0; k < a.top_k; k++) {
        int best = contest.take();
        float s = score[best];
        sum += s;
        if (lane == k) {
            expert = best;
            mine = s;
        }
    }
    if (lane < a.top_k) {
        float w = (a.normalise ? mine / (sum + 1e-20f) : mine) * a.scale;
        if (a.expert_scale)
            w *= load((const T *)a.expert_scale + expert);
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
                    args->normalise,
                    args->expert_scale};
    MB_WITH_TYPE(type, router_choice<T><<<blocks_for(args->n, CHOICE_WARPS), CHOICE_WARPS * 32, 0, stream>>>(a));
    return cudaGetLastError();
}
