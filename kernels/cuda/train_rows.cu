/*
 * train_rows.cu - gradients of what works on rows: RMSNorm, q/k norm with RoPE, SwiGLU; gathering and adding rows;
 * sums over rows.
 *
 * A sum over rows is taken in pieces of a fixed number of rows, each by one block; the pieces are added up in an
 * order that their number gives.
 */
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/train.h"

using namespace mb_cuda;

namespace
{

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr int NORM_ROWS = 64; /* of a piece */
constexpr int HEAD_ROWS = 32;
constexpr int SUM_ROWS = 128;
constexpr int FOLD_LINES = 32; /* chains of a column's pieces */

int64_t pieces_of(int64_t n, int64_t rows)
{
    return (n + rows - 1) / rows;
}

} // namespace

/* ---- sums over pieces ---- */

/* Block (32, FOLD_LINES): 32 columns; line y adds pieces y, y + FOLD_LINES, ..., then the lines are added in
 * order. */
static __global__ void fold_kernel(const float *partial, int64_t pieces, int64_t width, int64_t stride,
                                   float *total)
{
    __shared__ float sums[FOLD_LINES][33];
    const int64_t column = (int64_t)blockIdx.x * 32 + threadIdx.x;
    float sum = 0.0f;
    if (column < width)
        for (int64_t p = threadIdx.y; p < pieces; p += FOLD_LINES)
            sum += partial[p * stride + column];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        sum = 0.0f;
        for (int y = 0; y < FOLD_LINES; y++)
            sum += sums[y][threadIdx.x];
        total[column] += sum;
    }
}

extern "C" cudaError_t mb_launch_train_fold(cudaStream_t stream, const float *partial, int64_t pieces,
                                            int64_t width, int64_t stride, float *total)
{
    if (pieces > 0 && width > 0)
        fold_kernel<<<blocks_for(width, 32), dim3(32, FOLD_LINES), 0, stream>>>(partial, pieces, width, stride,
                                                                                total);
    return cudaGetLastError();
}

/* Grid (columns / THREADS, pieces). */
static __global__ void column_sums_kernel(const float *x, int64_t m, int64_t n, float *partial)
{
    const int64_t column = (int64_t)blockIdx.x * THREADS + threadIdx.x, piece = blockIdx.y;
    if (column >= n)
        return;
    float sum = 0.0f;
    for (int64_t i = piece * SUM_ROWS; i < (piece + 1) * SUM_ROWS && i < m; i++)
        sum += x[i * n + column];
    partial[piece * n + column] = sum;
}

extern "C" size_t mb_cuda_train_column_sums_work(int64_t m, int64_t n)
{
    return (size_t)(pieces_of(m, SUM_ROWS) * n) * sizeof(float);
}

extern "C" cudaError_t mb_launch_train_column_sums(cudaStream_t stream, const float *x, int64_t m, int64_t n,
                                                   float *total, void *work)
{
    const int64_t pieces = pieces_of(m, SUM_ROWS);
    if (m == 0 || n == 0)
        return cudaSuccess;
    if (pieces > 65535)
        return cudaErrorInvalidValue;
    column_sums_kernel<<<dim3(blocks_for(n, THREADS), (unsigned)pieces), THREADS, 0, stream>>>(x, m, n,
                                                                                               (float *)work);
    return mb_launch_train_fold(stream, (const float *)work, pieces, n, n, total);
}

/* ---- RMSNorm ---- */

/* With r = (mean x^2 + eps)^-1/2: dx = r w dy - x r^3/width sum(w dy x), a warp a row; then dw = sum dy x r over
 * the piece's rows, a thread a column. */
static __global__ void __launch_bounds__(THREADS) norm_gradient_kernel(mb_rmsnorm_gradient a, float *partial)
{
    __shared__ float rstd[NORM_ROWS];
    const int64_t width = a.width, first = (int64_t)blockIdx.x * NORM_ROWS;
    const int rows = (int)(a.n - first < NORM_ROWS ? a.n - first : NORM_ROWS);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int i = warp; i < rows; i += WARPS) {
        const float *x = a.x + (first + i) * width, *dy = a.dy + (first + i) * width;
        float *dx = a.dx + (first + i) * width, squares = 0.0f, dot = 0.0f;
        for (int64_t c = lane; c < width; c += 32) {
            const float v = x[c];
            squares += v * v;
            dot += a.weight[c] * dy[c] * v;
        }
        const float r = 1.0f / sqrtf(warp_sum(squares) / (float)width + a.eps);
        const float share = r * r * r * warp_sum(dot) / (float)width;
        if (lane == 0)
            rstd[i] = r;
        for (int64_t c = lane; c < width; c += 32) {
            const float d = r * a.weight[c] * dy[c] - share * x[c];
            dx[c] = a.add ? dx[c] + d : d;
        }
    }
    __syncthreads();
    for (int64_t c = threadIdx.x; c < width; c += THREADS) {
        float sum = 0.0f;
        for (int i = 0; i < rows; i++)
            sum += a.dy[(first + i) * width + c] * a.x[(first + i) * width + c] * rstd[i];
        partial[blockIdx.x * width + c] = sum;
    }
}

MB_CUDA_TRAINING_OPERATION(rmsnorm_gradient, mb_rmsnorm_gradient, MB_PART_ELEMENTWISE,
                           pieces_of(args->n, NORM_ROWS) * args->width * (int64_t)sizeof(float))
{
    const int64_t pieces = pieces_of(args->n, NORM_ROWS);
    if (args->n == 0)
        return cudaSuccess;
    if (args->dx == args->dy || args->dx == args->x) /* both are read again after dx is written */
        return cudaErrorInvalidValue;
    norm_gradient_kernel<<<(unsigned)pieces, THREADS, 0, device->stream>>>(*args, (float *)work);
    return mb_launch_train_fold(device->stream, (const float *)work, pieces, args->width, args->width,
                                args->dweight);
}

/* ---- q/k norm and RoPE ---- */

/* A lane holds pairs lane, lane + 32, ... of a head: the first rotary/2 are (j, j + rotary/2) and turn, the others
 * take the dimensions behind them, halves beside each other, and pass. */
constexpr int PAIRS_MAX = 4; /* of a lane: heads of up to 256 dimensions */

template <int PAIRS> struct Head {
    float a[PAIRS], b[PAIRS];
};

static __device__ __forceinline__ void places(const mb_train_qkv &q, int pair, int *a, int *b)
{
    const int half = q.rotary_dim / 2, rest = (q.head_dim - q.rotary_dim) / 2;
    *a = pair < half ? pair : q.rotary_dim + pair - half;
    *b = pair < half ? pair + half : q.rotary_dim + rest + pair - half;
}

template <int PAIRS>
static __device__ __forceinline__ Head<PAIRS> load_head(const mb_train_qkv &q, const float *from, int lane)
{
    Head<PAIRS> h;
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        const int pair = lane + 32 * j;
        int a, b;
        places(q, pair, &a, &b);
        h.a[j] = pair < q.head_dim / 2 ? from[a] : 0.0f;
        h.b[j] = pair < q.head_dim / 2 ? from[b] : 0.0f;
    }
    return h;
}

template <int PAIRS>
static __device__ __forceinline__ void store_head(const mb_train_qkv &q, float *to, const Head<PAIRS> &h, int lane)
{
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        const int pair = lane + 32 * j;
        int a, b;
        places(q, pair, &a, &b);
        if (pair < q.head_dim / 2) {
            to[a] = h.a[j];
            to[b] = h.b[j];
        }
    }
}

template <int PAIRS> static __device__ __forceinline__ float dot_heads(const Head<PAIRS> &x, const Head<PAIRS> &y)
{
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < PAIRS; j++)
        sum += x.a[j] * y.a[j] + x.b[j] * y.b[j];
    return warp_sum(sum);
}

template <int PAIRS>
static __device__ __forceinline__ void turn(const mb_train_qkv &q, int64_t row, float sign, Head<PAIRS> &h,
                                            int lane)
{
    const float *angles = q.cos_sin + (int64_t)q.positions[row] * q.rotary_dim;
    const int half = q.rotary_dim / 2;
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        const int pair = lane + 32 * j;
        if (pair < half) {
            const float c = angles[pair], s = sign * angles[half + pair], a = h.a[j], b = h.b[j];
            h.a[j] = a * c - b * s;
            h.b[j] = b * c + a * s;
        }
    }
}

/* A warp a (row, head). */
template <int PAIRS> static __global__ void __launch_bounds__(THREADS) train_qkv_kernel(mb_train_qkv q)
{
    const int heads = q.query_heads + 2 * q.kv_heads, lane = threadIdx.x & 31;
    const int64_t item = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    const int64_t row = item / heads;
    const int head = (int)(item - row * heads);
    if (row >= q.n)
        return;
    const int64_t at = (row * heads + head) * q.head_dim;
    Head<PAIRS> x = load_head<PAIRS>(q, q.qkv + at, lane);
    if (head < q.query_heads + q.kv_heads) {
        const float *w = head < q.query_heads ? q.q_norm : q.k_norm;
        if (w) {
            const Head<PAIRS> weight = load_head<PAIRS>(q, w, lane);
            const float r = 1.0f / sqrtf(dot_heads(x, x) / (float)q.head_dim + q.norm_eps);
#pragma unroll
            for (int j = 0; j < PAIRS; j++) {
                x.a[j] = x.a[j] * r * weight.a[j];
                x.b[j] = x.b[j] * r * weight.b[j];
            }
        }
        turn(q, row, 1.0f, x, lane);
    }
    store_head(q, q.out + at, x, lane);
}

static bool heads_fit(const mb_train_qkv *args)
{
    return args->head_dim <= 64 * PAIRS_MAX && args->head_dim % 2 == 0 && args->rotary_dim % 2 == 0 &&
           args->rotary_dim <= args->head_dim;
}

MB_CUDA_TRAINING_OPERATION(train_qkv, mb_train_qkv, MB_PART_ELEMENTWISE, 0)
{
    (void)work;
    if (!heads_fit(args))
        return cudaErrorInvalidValue;
    const unsigned blocks = blocks_for(args->n * (args->query_heads + 2 * args->kv_heads), WARPS);
    if (args->n == 0)
        return cudaSuccess;
    if (args->head_dim <= 64)
        train_qkv_kernel<1><<<blocks, THREADS, 0, device->stream>>>(*args);
    else if (args->head_dim <= 128)
        train_qkv_kernel<2><<<blocks, THREADS, 0, device->stream>>>(*args);
    else
        train_qkv_kernel<PAIRS_MAX><<<blocks, THREADS, 0, device->stream>>>(*args);
    return cudaGetLastError();
}

template <int PAIRS>
static __device__ __forceinline__ void norm_head(const mb_train_qkv &q, const float *qkv, const float *w,
                                                 Head<PAIRS> &d, Head<PAIRS> &dw, int lane)
{
    const Head<PAIRS> x = load_head<PAIRS>(q, qkv, lane), weight = load_head<PAIRS>(q, w, lane);
    Head<PAIRS> scaled;
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        scaled.a[j] = weight.a[j] * d.a[j];
        scaled.b[j] = weight.b[j] * d.b[j];
    }
    const float r = 1.0f / sqrtf(dot_heads(x, x) / (float)q.head_dim + q.norm_eps);
    const float share = r * r * r * dot_heads(scaled, x) / (float)q.head_dim;
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        dw.a[j] += d.a[j] * x.a[j] * r;
        dw.b[j] += d.b[j] * x.b[j] * r;
        d.a[j] = r * scaled.a[j] - share * x.a[j];
        d.b[j] = r * scaled.b[j] - share * x.b[j];
    }
}

/* A block a piece of rows; its warps go through (row, head) in turn and add up the weights' gradients in
 * registers. partial: [pieces][2][head_dim], or NULL without norms. */
template <int PAIRS>
static __global__ void __launch_bounds__(THREADS) qkv_gradient_kernel(mb_train_qkv q, float *partial)
{
    __shared__ float sums[WARPS][2][64 * PAIRS];
    const int heads = q.query_heads + 2 * q.kv_heads, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int64_t first = (int64_t)blockIdx.x * HEAD_ROWS;
    const int rows = (int)(q.n - first < HEAD_ROWS ? q.n - first : HEAD_ROWS);
    Head<PAIRS> dq = {}, dk = {};
    for (int item = warp; item < rows * heads; item += WARPS) {
        const int64_t row = first + item / heads;
        const int head = item % heads;
        const int64_t at = (row * heads + head) * q.head_dim;
        Head<PAIRS> d = load_head<PAIRS>(q, q.dout + at, lane);
        if (head < q.query_heads + q.kv_heads)
            turn(q, row, -1.0f, d, lane);
        if (head < q.query_heads && q.q_norm)
            norm_head(q, q.qkv + at, q.q_norm, d, dq, lane);
        else if (head >= q.query_heads && head < q.query_heads + q.kv_heads && q.k_norm)
            norm_head(q, q.qkv + at, q.k_norm, d, dk, lane);
        store_head(q, q.dqkv + at, d, lane);
    }
    if (!partial)
        return;
    store_head(q, sums[warp][0], dq, lane);
    store_head(q, sums[warp][1], dk, lane);
    __syncthreads();
    for (int c = threadIdx.x; c < 2 * q.head_dim; c += THREADS) {
        const int part = c / q.head_dim, at = c % q.head_dim;
        float sum = 0.0f;
        for (int w = 0; w < WARPS; w++)
            sum += sums[w][part][at];
        partial[(int64_t)blockIdx.x * 2 * q.head_dim + c] = sum;
    }
}

MB_CUDA_TRAINING_OPERATION(train_qkv_gradient, mb_train_qkv, MB_PART_ELEMENTWISE,
                           pieces_of(args->n, HEAD_ROWS) * 2 * args->head_dim * (int64_t)sizeof(float))
{
    const int64_t pieces = pieces_of(args->n, HEAD_ROWS), dim = args->head_dim;
    float *partial = args->dq_norm || args->dk_norm ? (float *)work : nullptr;
    cudaError_t status = cudaSuccess;
    if (!heads_fit(args))
        return cudaErrorInvalidValue;
    if (args->n == 0)
        return cudaSuccess;
    if (args->head_dim <= 64)
        qkv_gradient_kernel<1><<<(unsigned)pieces, THREADS, 0, device->stream>>>(*args, partial);
    else if (args->head_dim <= 128)
        qkv_gradient_kernel<2><<<(unsigned)pieces, THREADS, 0, device->stream>>>(*args, partial);
    else
        qkv_gradient_kernel<PAIRS_MAX><<<(unsigned)pieces, THREADS, 0, device->stream>>>(*args, partial);
    if (args->dq_norm)
        status = mb_launch_train_fold(device->stream, partial, pieces, dim, 2 * dim, args->dq_norm);
    if (status == cudaSuccess && args->dk_norm)
        status = mb_launch_train_fold(device->stream, partial + dim, pieces, dim, 2 * dim, args->dk_norm);
    return status == cudaSuccess ? cudaGetLastError() : status;
}

/* ---- SwiGLU ---- */

static __device__ __forceinline__ void swiglu_one(float gate, float up, float dy, float *dgate, float *dup)
{
    const float s = 1.0f / (1.0f + expf(-gate)), silu = gate * s;
    *dgate = dy * up * (s + silu * (1.0f - s));
    *dup = dy * silu;
}

/* V columns a thread: 4 where rows are aligned to 16 bytes. */
template <int V> static __global__ void __launch_bounds__(THREADS) swiglu_gradient_kernel(mb_swiglu_gradient a)
{
    const int64_t width = a.width, groups = width / V, total = a.n * groups;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < total; i += (int64_t)gridDim.x * THREADS) {
        const int64_t row = i / groups, c = (i - row * groups) * V;
        const float *gate = a.gate_up + row * 2 * width + c, *dy = a.dy + row * width + c;
        float *to = a.dgate_up + row * 2 * width + c;
        if constexpr (V == 4) {
            float g[4], u[4], d[4], dg[4], du[4];
            load4(gate, g);
            load4(gate + width, u);
            load4(dy, d);
#pragma unroll
            for (int j = 0; j < 4; j++)
                swiglu_one(g[j], u[j], d[j], &dg[j], &du[j]);
            store4(to, dg);
            store4(to + width, du);
        } else {
            swiglu_one(gate[0], gate[width], dy[0], to, to + width);
        }
    }
}

MB_CUDA_TRAINING_OPERATION(swiglu_gradient, mb_swiglu_gradient, MB_PART_ELEMENTWISE, 0)
{
    (void)work;
    if (args->n == 0)
        return cudaSuccess;
    if (args->width % 4 == 0)
        swiglu_gradient_kernel<4>
            <<<blocks_for(args->n * args->width / 4, THREADS), THREADS, 0, device->stream>>>(*args);
    else
        swiglu_gradient_kernel<1>
            <<<blocks_for(args->n * args->width, THREADS), THREADS, 0, device->stream>>>(*args);
    return cudaGetLastError();
}

/* ---- rows ---- */

static __global__ void __launch_bounds__(THREADS) gather_kernel(mb_train_gather a)
{
    const int64_t i = blockIdx.x, row = a.rows[i];
    for (int64_t c = threadIdx.x; c < a.width; c += THREADS)
        a.out[i * a.width + c] = a.x[row * a.width + c];
}

static __global__ void __launch_bounds__(THREADS) scatter_kernel(mb_train_gather a)
{
    const int64_t i = blockIdx.x, row = a.rows[i];
    for (int64_t c = threadIdx.x; c < a.width; c += THREADS)
        a.x[row * a.width + c] += a.out[i * a.width + c];
}

MB_CUDA_TRAINING_OPERATION(train_gather, mb_train_gather, MB_PART_COPY, 0)
{
    (void)work;
    if (args->n > 0)
        gather_kernel<<<(unsigned)args->n, THREADS, 0, device->stream>>>(*args);
    return cudaGetLastError();
}

MB_CUDA_TRAINING_OPERATION(train_scatter, mb_train_gather, MB_PART_COPY, 0)
{
    (void)work;
    if (args->n > 0)
        scatter_kernel<<<(unsigned)args->n, THREADS, 0, device->stream>>>(*args);
    return cudaGetLastError();
}

static __global__ void __launch_bounds__(THREADS) add_kernel(const float *x, const float *y, float *out, int64_t n)
{
    const int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 4;
    if (i + 4 <= n) {
        float a[4], b[4];
        load4(x + i, a);
        load4(y + i, b);
        for (int c = 0; c < 4; c++)
            a[c] += b[c];
        store4(out + i, a);
        return;
    }
    for (int64_t c = i; c < n; c++)
        out[c] = x[c] + y[c];
}

MB_CUDA_TRAINING_OPERATION(train_add, mb_train_add, MB_PART_ELEMENTWISE, 0)
{
    (void)work;
    if (((uintptr_t)args->x | (uintptr_t)args->y | (uintptr_t)args->out) % 16 != 0)
        return cudaErrorInvalidValue; /* arrays of the arena are aligned to 256 bytes */
    if (args->n > 0)
        add_kernel<<<blocks_for(args->n, 4 * THREADS), THREADS, 0, device->stream>>>(args->x, args->y, args->out,
                                                                                     args->n);
    return cudaGetLastError();
}
