/*
 * elementwise.cu - embedding rows, residual + RMSNorm, q/k norm + RoPE + KV append in one kernel, SwiGLU.
 *
 * All are bound by memory or by launch: one block or warp a row, four elements a thread and access. Rounding
 * points as in the CPU backend's elementwise.c (eager PyTorch, one rounding to T after every operator).
 */
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/depend.cuh"

using namespace mb_cuda;

/* Grid: (rows, parts of a row), four elements a thread; one by one where rows are not aligned to four. */
template <typename T, bool ALIGNED>
__global__ void embed_kernel(const int32_t *ids, int64_t vocab, int64_t width, const T *table, T *out)
{
    int64_t row = blockIdx.x, i = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * 4;
    int32_t id = ids[row];
    /* An id outside the table would read foreign memory; the host checks ids, this is the last line. */
    bool good = id >= 0 && id < vocab;
    if constexpr (ALIGNED) {
        float v[4] = {NAN, NAN, NAN, NAN};
        if (i < width) {
            if (good)
                load4(table + (int64_t)id * width + i, v);
            store4(out + row * width + i, v);
        }
    } else {
        for (int64_t c = i; c < i + 4 && c < width; c++)
            out[row * width + c] = good ? table[(int64_t)id * width + c] : T(NAN);
    }
}

MB_CUDA_OPERATION(embed, mb_embed, MB_PART_ELEMENTWISE)
{
    cudaStream_t stream = device->stream;
    mb_type type = device->type;
    const int32_t *ids = args->ids;
    const void *table = args->table;
    int64_t n = args->n, vocab = args->vocab, width = args->width;
    void *out = args->out;
    if (n == 0)
        return cudaSuccess;
    dim3 grid((unsigned)n, blocks_for(width, 4 * 256));
    if (width % 4 == 0)
        MB_WITH_TYPE(type, embed_kernel<T, true>
                     <<<grid, 256, 0, stream>>>(ids, vocab, width, (const T *)table, (T *)out));
    else
        MB_WITH_TYPE(type, embed_kernel<T, false>
                     <<<grid, 256, 0, stream>>>(ids, vocab, width, (const T *)table, (T *)out));
    return cudaGetLastError();
}

/* One block a row. The row stays in registers between the two passes (up to 4 * blockDim.x * 4 elements). */
constexpr int NORM_VECTORS = 8;
template <typename T>
__global__ void add_rmsnorm_kernel(T *x, const T *delta, const T *weight, float eps, int one_rounding,
                                   int64_t width, T *out)
{
    __shared__ float shared[32];
    int64_t base = (int64_t)blockIdx.x * width;
    let_dependents_start();
    wait_for_dependency();
    float v[NORM_VECTORS][4];
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < NORM_VECTORS; j++) {
        int64_t i = ((int64_t)j * blockDim.x + threadIdx.x) * 4;
        if (i < width) {
            load4(x + base + i, v[j]);
            if (delta) {
                float d[4];
                load4(delta + base + i, d);
                for (int c = 0; c < 4; c++)
                    v[j][c] = rounded<T>(v[j][c] + d[c]);
                store4(x + base + i, v[j]);
            }
            for (int c = 0; c < 4; c++)
                sum += v[j][c] * v[j][c];
        }
    }
    float rstd = 1.0f / sqrtf(block_sum(sum, shared) / (float)width + eps);
#pragma unroll
    for (int j = 0; j < NORM_VECTORS; j++) {
        int64_t i = ((int64_t)j * blockDim.x + threadIdx.x) * 4;
        if (i < width) {
            float w[4], y[4];
            load4(weight + i, w);
            for (int c = 0; c < 4; c++)
                y[c] = one_rounding ? v[j][c] * rstd * w[c] : rounded<T>(v[j][c] * rstd) * w[c];
            store4(out + base + i, y);
        }
    }
}

/* Any width: element by element, the residual sum read back from x. */
template <typename T>
__global__ void add_rmsnorm_any(T *x, const T *delta, const T *weight, float eps, int one_rounding, int64_t width,
                                T *out)
{
    __shared__ float shared[32];
    int64_t base = (int64_t)blockIdx.x * width;
    let_dependents_start();
    wait_for_dependency();
    float sum = 0.0f;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
        float v = load(x + base + i);
        if (delta) {
            v = rounded<T>(v + load(delta + base + i));
            store(x + base + i, v);
        }
        sum += v * v;
    }
    float rstd = 1.0f / sqrtf(block_sum(sum, shared) / (float)width + eps);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
        float v = load(x + base + i), w = load(weight + i);
        store(out + base + i, one_rounding ? v * rstd * w : rounded<T>(v * rstd) * w);
    }
}

MB_CUDA_OPERATION(add_rmsnorm, mb_rmsnorm, MB_PART_ELEMENTWISE)
{
    cudaStream_t stream = device->stream;
    mb_type type = device->type;
    const void *delta = args->delta, *weight = args->weight;
    void *x = args->x, *out = args->out;
    int64_t n = args->n, width = args->width;
    float eps = args->eps;
    int one_rounding = args->one_rounding;
    if (n == 0)
        return cudaSuccess;
    int64_t vectors = width / 4;
    int threads = vectors >= 512 ? 512 : vectors >= 128 ? 128 : 32;
    if (width % 4 == 0 && vectors <= (int64_t)NORM_VECTORS * threads)
        MB_WITH_TYPE(type, return launch_dependent(add_rmsnorm_kernel<T>, (unsigned)n, threads, 0, stream, (T *)x,
                                                   (const T *)delta, (const T *)weight, eps, one_rounding, width,
                                                   (T *)out));
    MB_WITH_TYPE(type,
                 return launch_dependent(add_rmsnorm_any<T>, (unsigned)n, 512, 0, stream, (T *)x, (const T *)delta,
                                         (const T *)weight, eps, one_rounding, width, (T *)out));
}

/* What qkv_kernel needs, by value. */
struct QkvArgs {
    const void *qkv, *q_norm, *k_norm;
    const float *cos_sin;
    void *q_out, *q_pre, *k, *v;
    const int32_t *prefix_len;
    int32_t rows, row_offset, query_heads, kv_heads, capacity, dim, rotary, one_rounding;
    float eps;
};

/* One warp a (row, head); heads run over q, then k, then v. A lane holds pairs i = lane, lane+32, ... of
 * dimensions, so that RoPE needs no exchange: the first rotary/2 pairs are (i, i + rotary/2) and turn, the others
 * take the dimensions behind them and pass. dim and rotary even, up to 256. */
template <typename T> __global__ void qkv_kernel(QkvArgs a, int64_t total)
{
    int64_t item = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    if (item >= total)
        return;
    int lane = threadIdx.x & 31, heads = a.query_heads + 2 * a.kv_heads, half = a.dim / 2, turns = a.rotary / 2;
    int64_t row = item / heads;
    int head = (int)(item % heads), b = (int)(row / a.rows), r = (int)(row % a.rows);
    const T *from = (const T *)a.qkv + (row * heads + head) * a.dim;
    int64_t position = (int64_t)a.prefix_len[b] + a.row_offset + r;
    bool is_v = head >= a.query_heads + a.kv_heads, is_q = head < a.query_heads;
    if (is_v || !is_q) {
        if (position < 0 || position >= a.capacity)
            return; /* outside the cache: the host's plan is wrong, but memory stays whole */
    }
    if (is_v) {
        int h = head - a.query_heads - a.kv_heads;
        T *to = (T *)a.v + (((int64_t)b * a.kv_heads + h) * a.capacity + position) * a.dim;
        for (int i = lane; i < a.dim; i += 32)
            to[i] = from[i];
        return;
    }
    float lo[4], hi[4], sum = 0.0f;
    int first[4], second[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int i = lane + 32 * j;
        first[j] = i < turns ? i : turns + i;
        second[j] = i < turns ? turns + i : half + i;
        lo[j] = i < half ? load(from + first[j]) : 0.0f;
        hi[j] = i < half ? load(from + second[j]) : 0.0f;
        sum += lo[j] * lo[j] + hi[j] * hi[j];
    }
    const T *norm = (const T *)(is_q ? a.q_norm : a.k_norm);
    if (norm) {
        float rstd = 1.0f / sqrtf(warp_sum(sum) / (float)a.dim + a.eps);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int i = lane + 32 * j;
            if (i < half) {
                float wl = load(norm + first[j]), wh = load(norm + second[j]);
                lo[j] = rounded<T>(a.one_rounding ? lo[j] * rstd * wl : rounded<T>(lo[j] * rstd) * wl);
                hi[j] = rounded<T>(a.one_rounding ? hi[j] * rstd * wh : rounded<T>(hi[j] * rstd) * wh);
            }
        }
    }
    const float *turn = a.cos_sin + position * a.rotary;
    T *to = is_q ? (T *)a.q_out + (row * a.query_heads + head) * a.dim
                 : (T *)a.k + (((int64_t)b * a.kv_heads + head - a.query_heads) * a.capacity + position) * a.dim;
    T *pre = is_q && a.q_pre ? (T *)a.q_pre + (row * a.query_heads + head) * a.dim : nullptr;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int i = lane + 32 * j;
        if (i < half) {
            if (pre) {
                store(pre + first[j], lo[j]);
                store(pre + second[j], hi[j]);
            }
            if (i < turns) {
                float c = turn[i], s = turn[turns + i];
                store(to + first[j], rounded<T>(lo[j] * c) + rounded<T>(-hi[j] * s));
                store(to + second[j], rounded<T>(hi[j] * c) + rounded<T>(lo[j] * s));
            } else {
                store(to + first[j], lo[j]);
                store(to + second[j], hi[j]);
            }
        }
    }
}

MB_CUDA_OPERATION(qkv_finish, mb_qkv, MB_PART_ELEMENTWISE)
{
    cudaStream_t stream = device->stream;
    mb_type type = device->type;
    int32_t rotary = args->rotary_dim ? args->rotary_dim : args->kv.head_dim;
    if (args->kv.head_dim > 256 || args->kv.head_dim % 2 || rotary < 0 || rotary > args->kv.head_dim || rotary % 2)
        return cudaErrorInvalidValue;
    QkvArgs a = {args->qkv,
                 args->q_norm,
                 args->k_norm,
                 args->cos_sin,
                 args->q_out,
                 args->q_pre,
                 args->kv.k,
                 args->kv.v,
                 args->rows.prefix_len,
                 args->rows.rows,
                 args->rows.row_offset,
                 args->query_heads,
                 args->kv.kv_heads,
                 args->kv.capacity,
                 args->kv.head_dim,
                 rotary,
                 args->norm_one_rounding,
                 args->norm_eps};
    int64_t total = (int64_t)args->rows.batch * args->rows.rows * (args->query_heads + 2 * args->kv.kv_heads);
    if (total == 0)
        return cudaSuccess;
    MB_WITH_TYPE(type, qkv_kernel<T><<<blocks_for(total, 4), 128, 0, stream>>>(a, total));
    return cudaGetLastError();
}

template <typename T> __global__ void swiglu_kernel(const T *gate_up, int64_t width, int64_t vectors, T *out)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4, row = blockIdx.y;
    if (i >= vectors * 4)
        return;
    float g[4], u[4];
    load4(gate_up + row * 2 * width + i, g);
    load4(gate_up + (row * 2 + 1) * width + i, u);
    for (int c = 0; c < 4; c++)
        g[c] = rounded<T>(g[c] / (1.0f + expf(-g[c]))) * u[c];
    store4(out + row * width + i, g);
}

template <typename T> __global__ void swiglu_any(const T *gate_up, int64_t width, T *out)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (i >= width)
        return;
    float g = load(gate_up + row * 2 * width + i), u = load(gate_up + (row * 2 + 1) * width + i);
    store(out + row * width + i, rounded<T>(g / (1.0f + expf(-g))) * u);
}

MB_CUDA_OPERATION(swiglu, mb_swiglu, MB_PART_ELEMENTWISE)
{
    cudaStream_t stream = device->stream;
    mb_type type = device->type;
    const void *gate_up = args->gate_up;
    int64_t n = args->n, width = args->width;
    void *out = args->out;
    /* Rows are the grid's second dimension, 65535 at most: longer inputs go in pieces. */
    for (int64_t row = 0; row < n; row += 65535) {
        unsigned rows = (unsigned)(n - row < 65535 ? n - row : 65535);
        size_t size = mb_type_size(type);
        const char *from = (const char *)gate_up + (size_t)(row * 2 * width) * size;
        char *to = (char *)out + (size_t)(row * width) * size;
        if (width % 4 == 0)
            MB_WITH_TYPE(type, swiglu_kernel<T><<<dim3(blocks_for(width / 4, 128), rows), 128, 0, stream>>>(
                                   (const T *)from, width, width / 4, (T *)to));
        else
            MB_WITH_TYPE(type, swiglu_any<T><<<dim3(blocks_for(width, 128), rows), 128, 0, stream>>>(
                                   (const T *)from, width, (T *)to));
    }
    return cudaGetLastError();
}

/* Copies as a kernel: a graph's memcpy node moves 2.8 TB/s on an H200, this and a stream's copy 4.2. V: what both
 * ends are aligned to. */
constexpr int COPY_THREADS = 512, COPY_LOADS = 4;
template <typename V> __global__ void __launch_bounds__(COPY_THREADS) copy_kernel(const V *from, V *to, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * COPY_THREADS * COPY_LOADS + threadIdx.x;
    V x[COPY_LOADS];
#pragma unroll
    for (int j = 0; j < COPY_LOADS; j++)
        if (i + j * COPY_THREADS < n)
            x[j] = from[i + j * COPY_THREADS];
#pragma unroll
    for (int j = 0; j < COPY_LOADS; j++)
        if (i + j * COPY_THREADS < n)
            to[i + j * COPY_THREADS] = x[j];
}

template <typename V> static void launch_copy(cudaStream_t stream, char *to, const char *from, size_t bytes)
{
    int64_t n = (int64_t)(bytes / sizeof(V));
    if (n > 0)
        copy_kernel<V>
            <<<blocks_for(n, COPY_THREADS * COPY_LOADS), COPY_THREADS, 0, stream>>>((const V *)from, (V *)to, n);
}

extern "C" cudaError_t mb_launch_copy(cudaStream_t stream, void *dst, const void *src, size_t bytes)
{
    char *to = (char *)dst;
    const char *from = (const char *)src;
    if (((uintptr_t)to | (uintptr_t)from) % sizeof(uint4) == 0) {
        size_t whole = bytes / sizeof(uint4) * sizeof(uint4);
        launch_copy<uint4>(stream, to, from, whole);
        launch_copy<char>(stream, to + whole, from + whole, bytes - whole);
    } else if (((uintptr_t)to | (uintptr_t)from | bytes) % sizeof(uint32_t) == 0) {
        launch_copy<uint32_t>(stream, to, from, bytes);
    } else {
        launch_copy<char>(stream, to, from, bytes);
    }
    return cudaGetLastError();
}
