/*
 * train_update.cu - the two ends of a backward pass: losses of rows of logits with their gradient, the gradient of
 * an embedding, and what is done with the gradients: their norm, AdamW.
 */
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/train.h"

#include <cub/device/device_radix_sort.cuh>

using namespace mb_cuda;

namespace
{

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int SQUARE_BLOCKS = 1024;
constexpr int PIECE = 64; /* sorted rows that a block adds up */

} // namespace

/* ---- losses ---- */

/* Sum over the block in double; every thread gets it. */
static __device__ __forceinline__ double block_sum_double(double x, double *shared)
{
    for (int offset = 16; offset; offset >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    __syncthreads();
    if ((threadIdx.x & 31) == 0)
        shared[threadIdx.x >> 5] = x;
    __syncthreads();
    x = 0.0;
    for (int w = 0; w < WARPS; w++)
        x += shared[w];
    return x;
}

/* The largest value over the block and its lowest place. */
static __device__ __forceinline__ void block_best(float &value, int64_t &place, float *values, int64_t *where)
{
    for (int offset = 16; offset; offset >>= 1) {
        const float v = __shfl_xor_sync(0xffffffffu, value, offset);
        const int64_t p = __shfl_xor_sync(0xffffffffu, place, offset);
        if (v > value || (v == value && p < place)) {
            value = v;
            place = p;
        }
    }
    __syncthreads();
    if ((threadIdx.x & 31) == 0) {
        values[threadIdx.x >> 5] = value;
        where[threadIdx.x >> 5] = place;
    }
    __syncthreads();
    value = values[0];
    place = where[0];
    for (int w = 1; w < WARPS; w++)
        if (values[w] > value || (values[w] == value && where[w] < place)) {
            value = values[w];
            place = where[w];
        }
}

struct LossShared {
    float values[WARPS], sums[32];
    int64_t where[WARPS];
    double doubles[WARPS];
};

/* The log of sum exp of a line, and its largest entry's place. */
static __device__ float log_sum(const float *x, int64_t n, int64_t *best, LossShared &shared)
{
    float most = -INFINITY, sum = 0.0f;
    int64_t place = n;
    for (int64_t i = threadIdx.x; i < n; i += THREADS)
        if (x[i] > most || place == n) {
            most = x[i];
            place = i;
        }
    block_best(most, place, shared.values, shared.where);
    for (int64_t i = threadIdx.x; i < n; i += THREADS)
        sum += expf(x[i] - most);
    *best = place;
    return most + logf(block_sum(sum, shared.sums));
}

/* A block a row. dlogits may be the logits: what a thread writes it alone reads, but for the target's logit, which
 * is read before. */
static __global__ void __launch_bounds__(THREADS) loss_kernel(mb_train_loss a)
{
    __shared__ LossShared shared;
    const int64_t row = blockIdx.x, n = a.vocab;
    const float *z = a.logits + row * n, *t = a.teacher ? a.teacher + row * n : nullptr;
    const int64_t target = a.targets[row];
    const float at =
        target >= 0 && target < n ? z[target] : NAN; /* the host checks targets, this is the last line */
    int64_t best, unused;
    const float lse = log_sum(z, n, &best, shared), teacher_lse = t ? log_sum(t, n, &unused, shared) : 0.0f;
    double kl = 0.0;
    for (int64_t i = threadIdx.x; t && i < n; i += THREADS) {
        const float log_p = z[i] - lse;
        kl += (double)(expf(log_p) * (log_p - (t[i] - teacher_lse)));
    }
    if (t)
        kl = block_sum_double(kl, shared.doubles);
    __syncthreads();
    if (threadIdx.x == 0) {
        a.ce[row] = lse - at;
        a.correct[row] = best == target;
        if (t)
            a.kl[row] = (float)kl;
    }
    if (!a.dlogits)
        return;
    float *d = a.dlogits + row * n;
    const float weight = a.weight[row], distil = t ? a.distil[row] : 0.0f, mean = (float)kl;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        const float log_p = z[i] - lse, p = expf(log_p);
        float value = weight * p;
        if (t)
            value += distil * p * (log_p - (t[i] - teacher_lse) - mean);
        d[i] = i == target ? value - weight : value;
    }
}

MB_CUDA_TRAINING_OPERATION(train_loss, mb_train_loss, MB_PART_SAMPLER, 0)
{
    (void)work;
    if (args->n > 0)
        loss_kernel<<<(unsigned)args->n, THREADS, 0, device->stream>>>(*args);
    return cudaGetLastError();
}

/* ---- the gradient of an embedding ---- */

/* Rows in the order of their ids, those of one id in the order of the batch: every id's rows are a run. A block
 * adds up a piece of PIECE rows. A run inside a piece goes to the table at once. A longer one leaves the sum of
 * each piece that it touches, and the block of the piece in which it began adds those up, in order. */
struct Sorted {
    const int32_t *ids, *rows; /* [n] */
    float *head, *tail; /* [pieces][width]: sums of the run that came into the piece, and of the one that leaves */
};

/* Whether the run at the end of piece p goes on in the next one. */
static __device__ __forceinline__ bool leaves(const Sorted &s, int64_t n, int64_t p)
{
    const int64_t end = (p + 1) * PIECE;
    return end < n && s.ids[end - 1] == s.ids[end];
}

static __global__ void __launch_bounds__(THREADS) embed_pieces_kernel(mb_embed_gradient a, Sorted s)
{
    const int64_t piece = blockIdx.x, first = piece * PIECE, last = min(first + PIECE, a.n);
    const bool came = piece > 0 && leaves(s, a.n, piece - 1), goes = leaves(s, a.n, piece);
    const int64_t c = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (c >= a.width)
        return;
    for (int64_t i = first; i < last;) {
        const int32_t id = s.ids[i];
        const bool begins = i > first || !came;
        float sum = 0.0f;
        for (; i < last && s.ids[i] == id; i++)
            sum += a.dy[(int64_t)s.rows[i] * a.width + c];
        if (!begins)
            s.head[piece * a.width + c] = sum;
        else if (i == last && goes)
            s.tail[piece * a.width + c] = sum;
        else if (id >= 0 && id < a.vocab)
            a.dtable[(int64_t)id * a.width + c] += sum;
    }
}

static __global__ void __launch_bounds__(THREADS) embed_runs_kernel(mb_embed_gradient a, Sorted s, int64_t pieces)
{
    const int64_t piece = blockIdx.x, first = piece * PIECE, c = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (c >= a.width || !leaves(s, a.n, piece))
        return;
    const int32_t id = s.ids[first + PIECE - 1];
    if (piece > 0 && s.ids[first] == id && leaves(s, a.n, piece - 1)) /* it began in front */
        return;
    float sum = s.tail[piece * a.width + c];
    for (int64_t p = piece + 1; p < pieces && s.ids[p * PIECE] == id; p++) {
        sum += s.head[p * a.width + c];
        if (!leaves(s, a.n, p) || s.ids[(p + 1) * PIECE - 1] != id)
            break;
    }
    if (id >= 0 && id < a.vocab)
        a.dtable[(int64_t)id * a.width + c] += sum;
}

static __global__ void __launch_bounds__(THREADS) number_kernel(int32_t *rows, int64_t n)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < n)
        rows[i] = (int32_t)i;
}

/* The pieces of its work memory, in bytes from the beginning. */
struct EmbedPlan {
    size_t rows, sorted_ids, sorted_rows, head, tail, sort, sort_bytes, total;
};

static EmbedPlan plan_embed(const mb_embed_gradient *args)
{
    EmbedPlan plan = {};
    const size_t padded = 256, n = (size_t)args->n, pieces = (n + PIECE - 1) / PIECE;
    auto take = [&](size_t bytes) {
        const size_t at = plan.total;
        plan.total += (bytes + padded - 1) / padded * padded;
        return at;
    };
    plan.rows = take(n * sizeof(int32_t));
    plan.sorted_ids = take(n * sizeof(int32_t));
    plan.sorted_rows = take(n * sizeof(int32_t));
    plan.head = take(pieces * (size_t)args->width * sizeof(float));
    plan.tail = take(pieces * (size_t)args->width * sizeof(float));
    cub::DeviceRadixSort::SortPairs(nullptr, plan.sort_bytes, (const int32_t *)nullptr, (int32_t *)nullptr,
                                    (const int32_t *)nullptr, (int32_t *)nullptr, (int)args->n);
    plan.sort = take(plan.sort_bytes);
    return plan;
}

MB_CUDA_TRAINING_OPERATION(embed_gradient, mb_embed_gradient, MB_PART_ELEMENTWISE, plan_embed(args).total)
{
    EmbedPlan plan = plan_embed(args);
    char *base = (char *)work;
    int32_t *rows = (int32_t *)(base + plan.rows), *ids = (int32_t *)(base + plan.sorted_ids);
    int32_t *order = (int32_t *)(base + plan.sorted_rows);
    const Sorted sorted = {ids, order, (float *)(base + plan.head), (float *)(base + plan.tail)};
    const int64_t pieces = (args->n + PIECE - 1) / PIECE;
    int bits = 1;
    if (args->n == 0)
        return cudaSuccess;
    if (args->n > 0x7fffffff)
        return cudaErrorInvalidValue;
    while (((int64_t)1 << bits) < args->vocab)
        bits++;
    number_kernel<<<blocks_for(args->n, THREADS), THREADS, 0, device->stream>>>(rows, args->n);
    cudaError_t status =
        cub::DeviceRadixSort::SortPairs(base + plan.sort, plan.sort_bytes, args->ids, ids, (const int32_t *)rows,
                                        order, (int)args->n, 0, bits, device->stream);
    if (status != cudaSuccess)
        return status;
    const dim3 grid((unsigned)pieces, blocks_for(args->width, THREADS));
    embed_pieces_kernel<<<grid, THREADS, 0, device->stream>>>(*args, sorted);
    embed_runs_kernel<<<grid, THREADS, 0, device->stream>>>(*args, sorted, pieces);
    return cudaGetLastError();
}

/* ---- the optimiser ---- */

struct Step {
    float step, root, keep; /* as in kernels/cpu/train_update.c */
};

static __global__ void __launch_bounds__(THREADS) adamw_kernel(mb_adamw a, Step s)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < a.n; i += (int64_t)gridDim.x * THREADS) {
        const float g = a.gradient[i] * a.scale;
        const float m = a.m[i] + (1.0f - a.beta1) * (g - a.m[i]);
        const float v = a.beta2 * a.v[i] + (1.0f - a.beta2) * g * g;
        a.m[i] = m;
        a.v[i] = v;
        a.weight[i] = a.weight[i] * s.keep - s.step * m / (sqrtf(v) / s.root + a.eps);
    }
}

MB_CUDA_TRAINING_OPERATION(adamw, mb_adamw, MB_PART_ELEMENTWISE, 0)
{
    (void)work;
    const Step s = {(float)((double)args->lr / args->correction1), (float)sqrt(args->correction2),
                    1.0f - args->lr * args->decay};
    if (args->n > 0)
        adamw_kernel<<<blocks_for(args->n, THREADS), THREADS, 0, device->stream>>>(*args, s);
    return cudaGetLastError();
}

static __global__ void __launch_bounds__(THREADS) square_kernel(const float *x, int64_t n, double *partial)
{
    __shared__ double shared[WARPS];
    double sum = 0.0;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS)
        sum += (double)x[i] * (double)x[i];
    sum = block_sum_double(sum, shared);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(THREADS)
    square_fold_kernel(const double *partial, int blocks, double *total)
{
    __shared__ double shared[WARPS];
    double sum = 0.0;
    for (int i = threadIdx.x; i < blocks; i += THREADS)
        sum += partial[i];
    sum = block_sum_double(sum, shared);
    if (threadIdx.x == 0)
        *total = sum;
}

extern "C" size_t mb_cuda_square_sum_work(void)
{
    return (1 + SQUARE_BLOCKS) * sizeof(double);
}

extern "C" cudaError_t mb_launch_square_sum(cudaStream_t stream, const float *x, int64_t n, void *work)
{
    double *total = (double *)work;
    square_kernel<<<SQUARE_BLOCKS, THREADS, 0, stream>>>(x, n, total + 1);
    square_fold_kernel<<<1, THREADS, 0, stream>>>(total + 1, SQUARE_BLOCKS, total);
    return cudaGetLastError();
}
