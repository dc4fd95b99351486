/*
 * train_attention_plain.cu - the forward of train_attention_plain.cuh: a running softmax over tiles of keys, and
 * the masses that the keys of an index are chosen by.
 */
#include "kernels/cuda/train_attention_plain.cuh"

/* ---- forward ---- */

template <typename M> struct ForwardShared {
    typename M::Tile q, k, v;
    typename M::Scores p;
    float exchange[2 * M::T];
    int codes[M::T];
};

/* One tile of scores to probabilities of the running softmax: p to shared memory; most, this thread's part of the
 * sum and the factor by which what was gathered shrinks. */
template <typename M>
static __device__ void soften(const Sight (&sights)[M::ROWS], float (&c)[M::ROWS][M::SCORES],
                              float (&most)[M::ROWS], float (&sum)[M::ROWS], float (&shrink)[M::ROWS],
                              ForwardShared<M> &shared)
{
    float best[M::ROWS];
#pragma unroll
    for (int i = 0; i < M::ROWS; i++) {
        best[i] = most[i];
#pragma unroll
        for (int j = 0; j < M::SCORES; j++) {
            if (!sees(sights[i], shared.codes[M::column_of(j)]))
                c[i][j] = -INFINITY;
            best[i] = fmaxf(best[i], c[i][j]);
        }
    }
    M::row_max(best, shared.exchange);
#pragma unroll
    for (int i = 0; i < M::ROWS; i++) {
        shrink[i] = most[i] == best[i] ? 1.0f : expf(most[i] - best[i]);
        sum[i] *= shrink[i];
        most[i] = best[i];
#pragma unroll
        for (int j = 0; j < M::SCORES; j++) {
            c[i][j] = c[i][j] == -INFINITY ? 0.0f : expf(c[i][j] - best[i]);
            sum[i] += c[i][j];
        }
        M::put_row(shared.p, i, c[i]);
    }
}

template <typename M> static __device__ void forward_span(const Arguments &a, const Span &s, float *memory)
{
    ForwardShared<M> &shared = *reinterpret_cast<ForwardShared<M> *>(memory);
    float most[M::ROWS], sum[M::ROWS], shrink[M::ROWS], c[M::ROWS][M::SCORES], o[M::ROWS][M::COLUMNS] = {};
    Sight sights[M::ROWS];
#pragma unroll
    for (int i = 0; i < M::ROWS; i++) {
        most[i] = -INFINITY;
        sum[i] = 0.0f;
        sights[i] = sight_of(a, s, M::row_of(i));
    }
    load_queries<M>(a, s, a.qkv, a.width, a.scale, shared.q);
    for (int first = 0; first < s.keys; first += M::T) {
        __syncthreads();
        load_keys<M>(a, s, first, 0, shared.k);
        load_keys<M>(a, s, first, 1, shared.v);
        load_codes<M>(a, s, first, shared.codes);
        __syncthreads();
        M::dots(shared.q, shared.k, c);
        soften<M>(sights, c, most, sum, shrink, shared);
#pragma unroll
        for (int i = 0; i < M::ROWS; i++)
#pragma unroll
            for (int j = 0; j < M::COLUMNS; j++)
                o[i][j] *= shrink[i];
        __syncthreads();
        M::products(shared.p, shared.v, o);
    }
    M::row_sum(sum, shared.exchange);
#pragma unroll
    for (int i = 0; i < M::ROWS; i++) {
        if (M::row_of(i) >= s.count)
            continue;
        int head;
        const int64_t row = (int64_t)s.document * a.per + query_of(a, s, M::row_of(i), &head);
        if (M::column_of(0) == 0)
            a.lse[row * a.query_heads + head] = most[i] + logf(sum[i]);
#pragma unroll
        for (int j = 0; j < M::COLUMNS; j++)
            if (M::dimension_of(j) < a.dim)
                a.out_to[(row * a.query_heads + head) * a.dim + M::dimension_of(j)] = o[i][j] / sum[i];
    }
}

/* Grid (tiles of rows, query heads, documents); long spans first. */
template <typename M> static __global__ void __launch_bounds__(THREADS) forward_kernel(Arguments a)
{
    extern __shared__ float memory[];
    int first, count;
    tile_rows(a, (int)(gridDim.x - 1 - blockIdx.x), M::T, &first, &count);
    forward_span<M>(a, span_of_rows(a, (int)blockIdx.z, (int)blockIdx.y, first, count), memory);
}

/* Grid (tiles of pairs, KV heads, entries). */
template <typename M> static __global__ void __launch_bounds__(THREADS) forward_entry_kernel(Arguments a)
{
    extern __shared__ float memory[];
    forward_span<M>(a, span_of_entry(a, (int)blockIdx.z, (int)blockIdx.y, (int)blockIdx.x * M::T, M::T), memory);
}

/* The mean over an entry's pairs of exp(s - lse): grid (tiles of clean keys, KV heads, entries). */
template <typename M> static __global__ void __launch_bounds__(THREADS) mass_kernel(Arguments a)
{
    extern __shared__ float memory[];
    ForwardShared<M> &shared = *reinterpret_cast<ForwardShared<M> *>(memory);
    const int entry = blockIdx.z, kv_head = blockIdx.y, first = (int)blockIdx.x * M::T,
              pairs = a.layout.block * a.group;
    Span s = span_of_entry(a, entry, kv_head, 0, M::T);
    float sum = 0.0f, c[M::ROWS][M::SCORES];
    s.keys = s.clean; /* the block's own have no mass */
    if (first < s.keys)
        load_keys<M>(a, s, first, 0, shared.k);
    for (int at = 0; first < s.keys && at < pairs; at += M::T) {
        s.first = at;
        s.count = min(M::T, pairs - at);
        __syncthreads();
        load_queries<M>(a, s, a.qkv, a.width, a.scale, shared.q);
        __syncthreads();
        M::dots(shared.q, shared.k, c);
#pragma unroll
        for (int i = 0; i < M::ROWS; i++) {
            int head;
            const int r = M::row_of(i);
            const int64_t row = (int64_t)s.document * a.per + query_of(a, s, min(r, s.count - 1), &head);
            const float lse = a.lse[row * a.query_heads + head];
#pragma unroll
            for (int j = 0; j < M::SCORES; j++)
                c[i][j] = r < s.count ? expf(c[i][j] - lse) : 0.0f;
            M::put_row(shared.p, i, c[i]);
        }
        __syncthreads();
        for (int r = 0; threadIdx.x < M::T && r < s.count; r++)
            sum += shared.p.x[r][threadIdx.x] / (float)pairs;
    }
    const int key = first + (int)threadIdx.x;
    if (threadIdx.x < M::T && key < a.layout.clean)
        a.mass[((int64_t)entry * a.kv_heads + kv_head) * a.layout.clean + key] = key < s.keys ? sum : 0.0f;
}

/* ---- launches ---- */

/* Masses choose keys: they are always exact. */
template <typename M> static cudaError_t masses(const Arguments &a, cudaStream_t stream)
{
    return start(mass_kernel<M>, dim3(tiles_of(a.layout.clean, M::T), (unsigned)a.kv_heads, (unsigned)a.entries),
                 sizeof(ForwardShared<M>), stream, a);
}

template <typename M> static cudaError_t forward(const Arguments &a, cudaStream_t stream)
{
    const size_t bytes = sizeof(ForwardShared<M>);
    const unsigned clean = tiles_of(a.layout.clean, M::T), noisy = a.ids ? 0 : tiles_of(a.layout.tail, M::T);
    const unsigned pairs = tiles_of(a.layout.block * a.group, M::T);
    const dim3 rows(clean + noisy, (unsigned)a.query_heads, (unsigned)a.layout.documents);
    cudaError_t status = start(forward_kernel<M>, rows, bytes, stream, a);
    if (status == cudaSuccess && a.ids)
        status = start(forward_entry_kernel<M>, dim3(pairs, (unsigned)a.kv_heads, (unsigned)a.entries), bytes,
                       stream, a);
    return status;
}

template <typename M, typename R> static cudaError_t run(const Arguments &a, bool rounded, cudaStream_t stream)
{
    cudaError_t status = rounded ? forward<R>(a, stream) : forward<M>(a, stream);
    return status == cudaSuccess && a.mass ? masses<M>(a, stream) : status;
}

static cudaError_t dispatch(const Arguments &a, bool reduced, cudaStream_t stream)
{
    const bool rounded = reduced && (a.dim == 64 || a.dim == 128);
    if (a.layout.documents == 0)
        return cudaSuccess;
    if (a.dim <= 64)
        return run<Exact<64, 64>, Rounded<64>>(a, rounded, stream);
    if (a.dim <= 128)
        return run<Exact<128, 32>, Rounded<128>>(a, rounded, stream);
    return a.dim > 256 ? cudaErrorInvalidValue : run<Exact<256, 32>, Exact<256, 32>>(a, false, stream);
}

extern "C" int mb_cuda_train_attend_plain(mb_device *device, const mb_train_attention *args)
{
    mb_cuda_part_begin(device, args->index ? MB_PART_SPARSE_ATTENTION : MB_PART_DENSE_ATTENTION);
    const cudaError_t status = dispatch(arguments_of(args), device->reduced, device->stream);
    mb_cuda_part_end(device);
    return mb_cuda_check(device, status, "train_attend");
}
