/*
 * train_attention_plain.cu - the forward of train_attention_plain.cuh: a running softmax over tiles of keys, and
 * the masses that the keys of an index are chosen by.
 */
#include "kernels/cuda/train_attention_plain.cuh"

/* ---- forward ---- */

template <int DIM, int T> struct ForwardShared {
    Tile<DIM, T> q, k, v;
    Scores<T> p;
};

static __device__ __forceinline__ float line_max(float x)
{
    for (int offset = 8; offset; offset >>= 1)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}
static __device__ __forceinline__ float line_sum(float x)
{
    for (int offset = 8; offset; offset >>= 1)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

/* One tile of scores to probabilities of the running softmax: p to shared memory; most, sum and the factor by
 * which what was gathered shrinks. */
template <int T>
static __device__ void soften(const Arguments &a, const Span &s, int first, float (&c)[T / 16][T / 16],
                              float (&most)[T / 16], float (&sum)[T / 16], float (&shrink)[T / 16], Scores<T> &p)
{
    constexpr int M = T / 16;
    const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
#pragma unroll
    for (int i = 0; i < M; i++) {
        int head, row = query_of(a, s, min(ty + 16 * i, s.count - 1), &head);
        float best = most[i], add = 0.0f;
#pragma unroll
        for (int j = 0; j < M; j++) {
            const int key = first + tx + 16 * j;
            if (key >= s.keys || !sees(a, s.entry, row, key_of(s, key)))
                c[i][j] = -INFINITY;
            best = fmaxf(best, c[i][j]);
        }
        best = line_max(best);
        shrink[i] = most[i] == best ? 1.0f : expf(most[i] - best);
#pragma unroll
        for (int j = 0; j < M; j++) {
            const float e = c[i][j] == -INFINITY ? 0.0f : expf(c[i][j] - best);
            p.x[ty + 16 * i][tx + 16 * j] = e;
            add += e;
        }
        sum[i] = sum[i] * shrink[i] + line_sum(add);
        most[i] = best;
    }
}

template <int DIM, int T> static __device__ void forward_span(const Arguments &a, const Span &s, float *memory)
{
    constexpr int M = T / 16, COLUMNS = DIM / 16;
    ForwardShared<DIM, T> &shared = *reinterpret_cast<ForwardShared<DIM, T> *>(memory);
    const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
    float most[M], sum[M], shrink[M], c[M][M], o[M][COLUMNS] = {};
#pragma unroll
    for (int i = 0; i < M; i++) {
        most[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    load_queries<DIM, T>(a, s, a.qkv, a.width, a.scale, shared.q);
    for (int first = 0; first < s.keys; first += T) {
        __syncthreads();
        load_keys<DIM, T>(a, s, first, 0, shared.k);
        load_keys<DIM, T>(a, s, first, 1, shared.v);
        __syncthreads();
        dots<DIM, T>(shared.q, shared.k, c);
        soften<T>(a, s, first, c, most, sum, shrink, shared.p);
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                o[i][j] *= shrink[i];
        __syncthreads();
        products<DIM, T>(shared.p, shared.v, o);
    }
#pragma unroll
    for (int i = 0; i < M; i++) {
        if (ty + 16 * i >= s.count)
            continue;
        int head;
        const int64_t row = (int64_t)s.document * a.per + query_of(a, s, ty + 16 * i, &head);
        if (tx == 0)
            a.lse[row * a.query_heads + head] = most[i] + logf(sum[i]);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            if (column_of(j) < a.dim)
                a.out_to[(row * a.query_heads + head) * a.dim + column_of(j)] = o[i][j] / sum[i];
    }
}

/* Grid (tiles of rows, query heads, documents); long spans first. */
template <int DIM, int T> static __global__ void __launch_bounds__(THREADS) forward_kernel(Arguments a)
{
    extern __shared__ float memory[];
    int first, count;
    tile_rows(a, (int)(gridDim.x - 1 - blockIdx.x), T, &first, &count);
    forward_span<DIM, T>(a, span_of_rows(a, (int)blockIdx.z, (int)blockIdx.y, first, count), memory);
}

/* Grid (tiles of pairs, KV heads, entries). */
template <int DIM, int T> static __global__ void __launch_bounds__(THREADS) forward_entry_kernel(Arguments a)
{
    extern __shared__ float memory[];
    forward_span<DIM, T>(a, span_of_entry(a, (int)blockIdx.z, (int)blockIdx.y, (int)blockIdx.x * T, T), memory);
}

/* The mean over an entry's pairs of exp(s - lse): grid (tiles of clean keys, KV heads, entries). */
template <int DIM, int T> static __global__ void __launch_bounds__(THREADS) mass_kernel(Arguments a)
{
    extern __shared__ float memory[];
    ForwardShared<DIM, T> &shared = *reinterpret_cast<ForwardShared<DIM, T> *>(memory);
    constexpr int M = T / 16;
    const int entry = blockIdx.z, kv_head = blockIdx.y, first = (int)blockIdx.x * T,
              pairs = a.layout.block * a.group;
    const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
    Span s = span_of_entry(a, entry, kv_head, 0, T);
    float sum = 0.0f, c[M][M];
    s.keys = s.clean; /* the block's own have no mass */
    if (first < s.keys)
        load_keys<DIM, T>(a, s, first, 0, shared.k);
    for (int at = 0; first < s.keys && at < pairs; at += T) {
        s.first = at;
        s.count = min(T, pairs - at);
        __syncthreads();
        load_queries<DIM, T>(a, s, a.qkv, a.width, a.scale, shared.q);
        __syncthreads();
        dots<DIM, T>(shared.q, shared.k, c);
#pragma unroll
        for (int i = 0; i < M; i++) {
            int head;
            const int64_t row = (int64_t)s.document * a.per + query_of(a, s, min(ty + 16 * i, s.count - 1), &head);
            const float lse = a.lse[row * a.query_heads + head];
#pragma unroll
            for (int j = 0; j < M; j++)
                shared.p.x[ty + 16 * i][tx + 16 * j] = ty + 16 * i < s.count ? expf(c[i][j] - lse) : 0.0f;
        }
        __syncthreads();
        for (int r = 0; threadIdx.x < T && r < s.count; r++)
            sum += shared.p.x[r][threadIdx.x] / (float)pairs;
    }
    const int key = first + (int)threadIdx.x;
    if (threadIdx.x < T && key < a.layout.clean)
        a.mass[((int64_t)entry * a.kv_heads + kv_head) * a.layout.clean + key] = key < s.keys ? sum : 0.0f;
}

/* ---- launches ---- */

template <int DIM, int T> static cudaError_t forward(const Arguments &a, cudaStream_t stream)
{
    const size_t bytes = sizeof(ForwardShared<DIM, T>);
    const unsigned clean = tiles_of(a.layout.clean, T), noisy = a.ids ? 0 : tiles_of(a.layout.tail, T);
    const unsigned pairs = tiles_of(a.layout.block * a.group, T);
    const dim3 rows(clean + noisy, (unsigned)a.query_heads, (unsigned)a.layout.documents);
    cudaError_t status = start(forward_kernel<DIM, T>, rows, bytes, stream, a);
    if (status == cudaSuccess && a.ids)
        status = start(forward_entry_kernel<DIM, T>, dim3(pairs, (unsigned)a.kv_heads, (unsigned)a.entries), bytes,
                       stream, a);
    if (status == cudaSuccess && a.mass)
        status =
            start(mass_kernel<DIM, T>, dim3(clean, (unsigned)a.kv_heads, (unsigned)a.entries), bytes, stream, a);
    return status;
}

static cudaError_t dispatch(const Arguments &a, cudaStream_t stream)
{
    if (a.layout.documents == 0)
        return cudaSuccess;
    if (a.dim <= 64)
        return forward<64, 64>(a, stream);
    if (a.dim <= 128)
        return forward<128, 32>(a, stream);
    return a.dim > 256 ? cudaErrorInvalidValue : forward<256, 32>(a, stream);
}

extern "C" int mb_cuda_train_attend_plain(mb_device *device, const mb_train_attention *args)
{
    mb_cuda_part_begin(device, args->index ? MB_PART_SPARSE_ATTENTION : MB_PART_DENSE_ATTENTION);
    const cudaError_t status = dispatch(arguments_of(args), device->stream);
    mb_cuda_part_end(device);
    return mb_cuda_check(device, status, "train_attend");
}
