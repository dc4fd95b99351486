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
__global__ void embed_kernel(const int32_t *ids, int64_t vocab, int64_t width, const T *table, float scale, T *out)
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
            for (int c = 0; c < 4; c++)
                v[c] *= scale;
            store4(out + row * width + i, v);
        }
    } else {
        for (int64_t c = i; c < i + 4 && c < width; c++)
            store(out + row * width + c, good ? load(table + (int64_t)id * width + c) * scale : NAN);
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
    const float scale = args->scale == 0.0f ? 1.0f : args->scale; /* a number of T times 1 is itself */
    dim3 grid((unsigned)n, blocks_for(width, 4 * 256));
    if (width % 4 == 0)
        MB_WITH_TYPE(type, embed_kernel<T, true>
                     <<<grid, 256, 0, stream>>>(ids, vocab, width, (const T *)table, scale, (T *)out));
    else
        MB_WITH_TYPE(type, embed_kernel<T, false>
                     <<<grid, 256, 0, stream>>>(ids, vocab, width, (const T *)table, scale, (T *)out));
    return cudaGetLastError();
}

/* What both kernels of the norm need beside the arrays. */
struct NormArgs {
    float eps, factor; /* factor 0: none */
    int one_rounding;
    int64_t width;
    const void *scale; /* NULL, or one number of T */
};

/* One value of the result: x * rstd, the weight and the factor with their roundings. */
template <typename T>
__device__ __forceinline__ float normalised(float x, float rstd, const float *weight, const NormArgs &a)
{
    float y = x * rstd;
    if (weight)
        y = a.one_rounding ? y * *weight : rounded<T>(y) * *weight;
    return a.factor != 0.0f ? rounded<T>(y) * a.factor : y;
}

/* One block a row. The row stays in registers between the two passes (up to 4 * blockDim.x * 4 elements). */
constexpr int NORM_VECTORS = 8;
template <typename T>
__global__ void add_rmsnorm_kernel(T *x, const T *delta, const T *weight, NormArgs a, T *out)
{
    __shared__ float shared[32];
    const int64_t width = a.width, base = (int64_t)blockIdx.x * width;
    let_dependents_start();
    wait_for_dependency();
    const float scale = a.scale ? load((const T *)a.scale) : 1.0f;
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
            }
            if (a.scale)
                for (int c = 0; c < 4; c++)
                    v[j][c] = rounded<T>(v[j][c] * scale);
            if (delta || a.scale)
                store4(x + base + i, v[j]);
            for (int c = 0; c < 4; c++)
                sum += v[j][c] * v[j][c];
        }
    }
    float rstd = 1.0f / sqrtf(block_sum(sum, shared) / (float)width + a.eps);
#pragma unroll
    for (int j = 0; j < NORM_VECTORS; j++) {
        int64_t i = ((int64_t)j * blockDim.x + threadIdx.x) * 4;
        if (i < width) {
            float w[4], y[4];
            if (weight)
                load4(weight + i, w);
            for (int c = 0; c < 4; c++)
                y[c] = normalised<T>(v[j][c], rstd, weight ? &w[c] : nullptr, a);
            store4(out + base + i, y);
        }
    }
}

/* Any width: element by element, the residual sum read back from x. */
template <typename T>
__global__ void add_rmsnorm_any(T *x, const T *delta, const T *weight, NormArgs a, T *out)
{
    __shared__ float shared[32];
    const int64_t width = a.width, base = (int64_t)blockIdx.x * width;
    let_dependents_start();
    wait_for_dependency();
    const float scale = a.scale ? load((const T *)a.scale) : 1.0f;
    float sum = 0.0f;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
        float v = load(x + base + i);
        if (delta) {
            v = rounded<T>(v + load(delta + base + i));
        }
        if (a.scale)
            v = rounded<T>(v * scale);
        if (delta || a.scale)
            store(x + base + i, v);
        sum += v * v;
    }
    float rstd = 1.0f / sqrtf(block_sum(sum, shared) / (float)width + a.eps);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
        float v = load(x + base + i), w = weight ? load(weight + i) : 1.0f;
        store(out + base + i, normalised<T>(v, rstd, weight ? &w : nullptr, a));
    }
}

MB_CUDA_OPERATION(add_rmsnorm, mb_rmsnorm, MB_PART_ELEMENTWISE)
{
    cudaStream_t stream = device->stream;
    mb_type type = device->type;
    const void *delta = args->delta, *weight = args->weight;
    void *x = args->x, *out = args->out;
    int64_t n = args->n, width = args->width;
    NormArgs a = {args->eps, args->factor, args->one_rounding, width, args->scale};
    if (n == 0)
        return cudaSuccess;
    int64_t vectors = width / 4;
    int threads = vectors >= 512 ? 512 : vectors >= 128 ? 128 : 32;
    if (width % 4 == 0 && vectors <= (int64_t)NORM_VECTORS * threads)
        MB_WITH_TYPE(type, return launch_dependent(&device->chip, add_rmsnorm_kernel<T>, (unsigned)n, threads, 0,
                                                   stream, (T *)x, (const T *)delta, (const T *)weight, a,
                                                   (T *)out));
    MB_WITH_TYPE(type, return launch_dependent(&device->chip, add_rmsnorm_any<T>, (unsigned)n, 512, 0, stream,
                                               (T *)x, (const T *)delta, (const T *)weight, a, (T *)out));
}

/* What qkv_kernel needs, by value. */
struct QkvArgs {
    const void *qkv, *q_norm, *k_norm;
    const float *cos_sin;
    void *q_out, *q_pre, *k, *v;
    const int32_t *prefix_len;
    int32_t rows, row_offset, query_heads, kv_heads, capacity, dim, rotary, one_rounding;
    float eps;
    int32_t v_norm, v_of_k;
    float q_scale; /* 0: none */
};

/* A head's value, by one warp: as it is, or normalised without a weight. */
template <typename T> __device__ __forceinline__ void put_value(const QkvArgs &a, const T *from, T *to, int lane)
{
    float sum = 0.0f;
    for (int i = lane; i < a.dim && a.v_norm; i += 32)
        sum += load(from + i) * load(from + i);
    float rstd = a.v_norm ? 1.0f / sqrtf(warp_sum(sum) / (float)a.dim + a.eps) : 1.0f;
    for (int i = lane; i < a.dim; i += 32)
        store(to + i, load(from + i) * rstd);
}

/* One warp a (row, head); heads run over q, then k, then v. A lane holds pairs i = lane, lane+32, ... of
 * dimensions, so that RoPE needs no exchange: the first rotary/2 pairs are (i, i + rotary/2) and turn, the others
 * take the dimensions behind them and pass. dim and rotary even, up to 64 * PAIRS. */
template <typename T, int PAIRS> __global__ void qkv_kernel(QkvArgs a, int64_t total)
{
    int64_t item = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    if (item >= total)
        return;
    int lane = threadIdx.x & 31, heads = a.query_heads + 2 * a.kv_heads, half = a.dim / 2, turns = a.rotary / 2;
    int64_t row = item / heads;
    int head = (int)(item % heads), b = (int)(row / a.rows), r = (int)(row % a.rows);
    int64_t position = (int64_t)a.prefix_len[b] + a.row_offset + r;
    bool is_v = head >= a.query_heads + a.kv_heads, is_q = head < a.query_heads;
    /* Without a value projection a row has no third part: values are made of the keys. */
    const int stored = a.v_of_k ? heads - a.kv_heads : heads;
    const T *from = (const T *)a.qkv + (row * stored + (is_v && a.v_of_k ? head - a.kv_heads : head)) * a.dim;
    if (is_v || !is_q) {
        if (position < 0 || position >= a.capacity)
            return; /* outside the cache: the host's plan is wrong, but memory stays whole */
    }
    if (is_v) {
        int h = head - a.query_heads - a.kv_heads;
        T *to = (T *)a.v + (((int64_t)b * a.kv_heads + h) * a.capacity + position) * a.dim;
        put_value(a, from, to, lane);
        return;
    }
    float lo[PAIRS], hi[PAIRS], sum = 0.0f;
    int first[PAIRS], second[PAIRS];
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
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
        for (int j = 0; j < PAIRS; j++) {
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
    for (int j = 0; j < PAIRS; j++) {
        int i = lane + 32 * j;
        if (i < half) {
            if (pre) {
                store(pre + first[j], lo[j]);
                store(pre + second[j], hi[j]);
            }
            float one = lo[j], two = hi[j];
            if (i < turns) {
                float c = turn[i], s = turn[turns + i];
                one = rounded<T>(lo[j] * c) + rounded<T>(-hi[j] * s);
                two = rounded<T>(hi[j] * c) + rounded<T>(lo[j] * s);
            }
            if (is_q && a.q_scale != 0.0f) {
                one = rounded<T>(one) * a.q_scale;
                two = rounded<T>(two) * a.q_scale;
            }
            store(to + first[j], one);
            store(to + second[j], two);
        }
    }
}

MB_CUDA_OPERATION(qkv_finish, mb_qkv, MB_PART_ELEMENTWISE)
{
    cudaStream_t stream = device->stream;
    mb_type type = device->type;
    int32_t rotary = args->rotary_dim ? args->rotary_dim : args->kv.head_dim;
    if (args->kv.head_dim > 512 || args->kv.head_dim % 2 || rotary < 0 || rotary > args->kv.head_dim || rotary % 2)
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
                 args->norm_eps,
                 args->v_norm,
                 args->v_of_k,
                 args->q_scale};
    int64_t total = (int64_t)args->rows.batch * args->rows.rows * (args->query_heads + 2 * args->kv.kv_heads);
    if (total == 0)
        return cudaSuccess;
    if (args->kv.head_dim <= 256)
        MB_WITH_TYPE(type, qkv_kernel<T, 4><<<blocks_for(total, 4), 128, 0, stream>>>(a, total));
    else
        MB_WITH_TYPE(type, qkv_kernel<T, 8><<<blocks_for(total, 4), 128, 0, stream>>>(a, total));
    return cudaGetLastError();
}

template <typename T>
__global__ void swiglu_kernel(const T *gate_up, int64_t width, int64_t vectors, mb_activation activation, T *out)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4, row = blockIdx.y;
    if (i >= vectors * 4)
        return;
    float g[4], u[4];
    load4(gate_up + row * 2 * width + i, g);
    load4(gate_up + (row * 2 + 1) * width + i, u);
    for (int c = 0; c < 4; c++)
        g[c] = rounded<T>(activated(g[c], activation)) * u[c];
    store4(out + row * width + i, g);
}

template <typename T>
__global__ void swiglu_any(const T *gate_up, int64_t width, mb_activation activation, T *out)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (i >= width)
        return;
    float g = load(gate_up + row * 2 * width + i), u = load(gate_up + (row * 2 + 1) * width + i);
    store(out + row * width + i, rounded<T>(activated(g, activation)) * u);
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
                                   (const T *)from, width, width / 4, args->activation, (T *)to));
        else
            MB_WITH_TYPE(type, swiglu_any<T><<<dim3(blocks_for(width, 128), rows), 128, 0, stream>>>(
                                   (const T *)from, width, args->activation, (T *)to));
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
