/*
 * train_attention_plain_gradient.cu - the gradient of train_attention_plain.cuh.
 *
 * One kernel for queries; one for keys, which goes through the queries that may see a tile of keys; with an index
 * one more, which leaves the gradient of each picked key by entry, and one that adds these up in the order of the
 * blocks.
 */
#include "kernels/cuda/train_attention_plain.cuh"

/* ---- gradients ---- */

template <typename M> struct GradientShared {
    typename M::Tile q, d, k, v;
    typename M::Scores p, ds;
    float lse[M::T], delta[M::T];
    Sight sights[M::T];
    int codes[M::T];
};

/* A warp a (row, head). */
static __global__ void __launch_bounds__(THREADS) delta_kernel(Arguments a, int64_t items)
{
    const int64_t item = (int64_t)blockIdx.x * (THREADS / 32) + (threadIdx.x >> 5);
    if (item >= items)
        return;
    float sum = 0.0f;
    for (int c = threadIdx.x & 31; c < a.dim; c += 32)
        sum += a.dout[item * a.dim + c] * a.out[item * a.dim + c];
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0)
        a.delta[item] = sum;
}

template <typename M>
static __device__ void load_gradient_queries(const Arguments &a, const Span &s, GradientShared<M> &shared)
{
    load_queries<M>(a, s, a.qkv, a.width, a.scale, shared.q);
    load_queries<M>(a, s, a.dout, a.query_heads * a.dim, 1.0f, shared.d);
    if (threadIdx.x < M::T) {
        int head;
        const int64_t row =
            (int64_t)s.document * a.per + query_of(a, s, min((int)threadIdx.x, s.count - 1), &head);
        shared.lse[threadIdx.x] = a.lse[row * a.query_heads + head];
        shared.delta[threadIdx.x] = a.delta[row * a.query_heads + head];
        shared.sights[threadIdx.x] = sight_of(a, s, (int)threadIdx.x);
    }
}

/* dQ = scale dS K with dS = P (dP - delta), dP = dO V^T. */
template <typename M> static __device__ void query_gradient(const Arguments &a, const Span &s, float *memory)
{
    GradientShared<M> &shared = *reinterpret_cast<GradientShared<M> *>(memory);
    float c[M::ROWS][M::SCORES], dp[M::ROWS][M::SCORES], dq[M::ROWS][M::COLUMNS] = {};
    load_gradient_queries<M>(a, s, shared);
    for (int first = 0; first < s.keys; first += M::T) {
        __syncthreads();
        load_keys<M>(a, s, first, 0, shared.k);
        load_keys<M>(a, s, first, 1, shared.v);
        load_codes<M>(a, s, first, shared.codes);
        __syncthreads();
        M::dots(shared.q, shared.k, c);
        M::dots(shared.d, shared.v, dp);
#pragma unroll
        for (int i = 0; i < M::ROWS; i++) {
            const int r = M::row_of(i);
            const Sight sight = shared.sights[r];
            const float lse = shared.lse[r], delta = shared.delta[r];
#pragma unroll
            for (int j = 0; j < M::SCORES; j++)
                c[i][j] =
                    sees(sight, shared.codes[M::column_of(j)]) ? expf(c[i][j] - lse) * (dp[i][j] - delta) : 0.0f;
            M::put_row(shared.ds, i, c[i]);
        }
        __syncthreads();
        M::products(shared.ds, shared.k, dq);
    }
#pragma unroll
    for (int i = 0; i < M::ROWS; i++) {
        if (M::row_of(i) >= s.count)
            continue;
        int head;
        const int64_t row = (int64_t)s.document * a.per + query_of(a, s, M::row_of(i), &head);
#pragma unroll
        for (int j = 0; j < M::COLUMNS; j++)
            if (M::dimension_of(j) < a.dim)
                a.dqkv[row * a.width + head * a.dim + M::dimension_of(j)] = dq[i][j] * a.scale;
    }
}

template <typename M> static __global__ void __launch_bounds__(THREADS) query_gradient_kernel(Arguments a)
{
    extern __shared__ float memory[];
    int first, count;
    tile_rows(a, (int)(gridDim.x - 1 - blockIdx.x), M::T, &first, &count);
    query_gradient<M>(a, span_of_rows(a, (int)blockIdx.z, (int)blockIdx.y, first, count), memory);
}

template <typename M> static __global__ void __launch_bounds__(THREADS) query_gradient_entry_kernel(Arguments a)
{
    extern __shared__ float memory[];
    query_gradient<M>(a, span_of_entry(a, (int)blockIdx.z, (int)blockIdx.y, (int)blockIdx.x * M::T, M::T), memory);
}

/* What a tile of queries adds to the keys in shared memory: dV += P^T dO, dK += dS^T Q (Q scaled). codes: of this
 * thread's keys. Ends with a barrier. */
template <typename M>
static __device__ void add_queries(const Arguments &a, const Span &queries, const int (&codes)[M::ROWS],
                                   GradientShared<M> &shared, float (&dk)[M::ROWS][M::COLUMNS],
                                   float (&dv)[M::ROWS][M::COLUMNS])
{
    float c[M::ROWS][M::SCORES], dp[M::ROWS][M::SCORES];
    load_gradient_queries<M>(a, queries, shared);
    __syncthreads();
    M::dots(shared.k, shared.q, c);
    M::dots(shared.v, shared.d, dp);
#pragma unroll
    for (int j = 0; j < M::SCORES; j++) {
        const int r = M::column_of(j);
        const Sight sight = shared.sights[r];
        const float lse = shared.lse[r], delta = shared.delta[r];
#pragma unroll
        for (int i = 0; i < M::ROWS; i++) {
            c[i][j] = sees(sight, codes[i]) ? expf(c[i][j] - lse) : 0.0f;
            dp[i][j] = c[i][j] * (dp[i][j] - delta);
        }
    }
#pragma unroll
    for (int i = 0; i < M::ROWS; i++) {
        M::put_row(shared.p, i, c[i]);
        M::put_row(shared.ds, i, dp[i]);
    }
    __syncthreads();
    M::products(shared.p, shared.d, dv);
    M::products(shared.ds, shared.q, dk);
    __syncthreads();
}

/* Grid (tiles of keys, KV heads, documents): the gradient of a tile of rows as keys, by all queries that read them
 * without an index. */
template <typename M> static __global__ void __launch_bounds__(THREADS) key_gradient_kernel(Arguments a)
{
    extern __shared__ float memory[];
    GradientShared<M> &shared = *reinterpret_cast<GradientShared<M> *>(memory);
    const int document = blockIdx.z, kv_head = blockIdx.y, block = a.layout.block;
    int first, count, codes[M::ROWS];
    const bool clean = tile_rows(a, (int)blockIdx.x, M::T, &first, &count);
    const int tiles = (a.layout.clean + M::T - 1) / M::T + (a.layout.tail + M::T - 1) / M::T;
    float dk[M::ROWS][M::COLUMNS] = {}, dv[M::ROWS][M::COLUMNS] = {};
    /* The tile's rows as keys of a span: keys 0 .. count-1 are rows first .. */
    const Span keys = {document, 0, 0, 0, kv_head, false, 0, 0, first, count, nullptr};
    load_keys<M>(a, keys, 0, 0, shared.k);
    load_keys<M>(a, keys, 0, 1, shared.v);
    for (int i = 0; i < M::ROWS; i++)
        codes[i] = code_of(a, keys, M::row_of(i));
    const int low = position_of(a, first) / block, high = position_of(a, first + count - 1) / block;
    for (int g = 0; g < a.group; g++)
        for (int tile = 0; tile < tiles; tile++) {
            int row, rows;
            const bool clean_rows = tile_rows(a, tile, M::T, &row, &rows);
            const int from = position_of(a, row) / block, to = position_of(a, row + rows - 1) / block;
            const bool met =
                clean ? clean_rows ? to >= low : to > low && !a.ids : !clean_rows && from <= high && to >= low;
            if (met)
                add_queries<M>(a, span_of_rows(a, document, kv_head * a.group + g, row, rows), codes, shared, dk,
                               dv);
        }
#pragma unroll
    for (int i = 0; i < M::ROWS; i++) {
        if (M::row_of(i) >= count)
            continue;
        float *to = a.dqkv + ((int64_t)document * a.per + first + M::row_of(i)) * a.width + a.query_heads * a.dim;
#pragma unroll
        for (int j = 0; j < M::COLUMNS; j++)
            if (M::dimension_of(j) < a.dim) {
                to[kv_head * a.dim + M::dimension_of(j)] = dk[i][j];
                to[(a.kv_heads + kv_head) * a.dim + M::dimension_of(j)] = dv[i][j];
            }
    }
}

/* Grid (tiles of picked keys, KV heads, entries): what an entry's queries add to the keys of its index. */
template <typename M> static __global__ void __launch_bounds__(THREADS) picked_gradient_kernel(Arguments a)
{
    extern __shared__ float memory[];
    GradientShared<M> &shared = *reinterpret_cast<GradientShared<M> *>(memory);
    const int entry = blockIdx.z, kv_head = blockIdx.y, first = (int)blockIdx.x * M::T,
              pairs = a.layout.block * a.group;
    Span keys = span_of_entry(a, entry, kv_head, 0, M::T);
    keys.keys = keys.clean;
    if (first >= keys.keys)
        return;
    int codes[M::ROWS];
    float dk[M::ROWS][M::COLUMNS] = {}, dv[M::ROWS][M::COLUMNS] = {};
    load_keys<M>(a, keys, first, 0, shared.k);
    load_keys<M>(a, keys, first, 1, shared.v);
    for (int i = 0; i < M::ROWS; i++)
        codes[i] = code_of(a, keys, first + M::row_of(i));
    for (int at = 0; at < pairs; at += M::T)
        add_queries<M>(a, span_of_entry(a, entry, kv_head, at, M::T), codes, shared, dk, dv);
#pragma unroll
    for (int i = 0; i < M::ROWS; i++) {
        const int key = first + M::row_of(i);
        if (key >= keys.keys)
            continue;
        float *to = a.picked + (((int64_t)entry * a.kv_heads + kv_head) * a.capacity + key) * 2 * a.dim;
#pragma unroll
        for (int j = 0; j < M::COLUMNS; j++)
            if (M::dimension_of(j) < a.dim) {
                to[M::dimension_of(j)] = dk[i][j];
                to[a.dim + M::dimension_of(j)] = dv[i][j];
            }
    }
}

/* Grid (entries * KV heads): place was filled with -1. */
static __global__ void __launch_bounds__(THREADS) place_kernel(Arguments a)
{
    const int64_t at = blockIdx.x;
    for (int i = threadIdx.x; i < a.counts[at]; i += THREADS)
        a.place[at * a.layout.clean + a.ids[at * a.capacity + i]] = i;
}

/* Grid (clean keys of a document, documents): adds what the entries left, in order. */
static __global__ void __launch_bounds__(THREADS) gather_picked_kernel(Arguments a)
{
    const int key = blockIdx.x, document = blockIdx.y, all = a.kv_heads * a.dim;
    float *to = a.dqkv + ((int64_t)document * a.per + key) * a.width + a.query_heads * a.dim;
    for (int c = threadIdx.x; c < 2 * all; c += THREADS) {
        const int part = c / all, head = c % all / a.dim, d = c % a.dim;
        float sum = to[c];
        for (int e = 0; e < a.blocks; e++) {
            const int64_t at = ((int64_t)document * a.blocks + e) * a.kv_heads + head;
            const int place = a.place[at * a.layout.clean + key];
            if (place >= 0)
                sum += a.picked[((at * a.capacity + place) * 2 + part) * a.dim + d];
        }
        to[c] = sum;
    }
}

/* ---- launches ---- */

template <typename M> static cudaError_t backward(const Arguments &a, cudaStream_t stream)
{
    const size_t bytes = sizeof(GradientShared<M>);
    const unsigned clean = tiles_of(a.layout.clean, M::T), noisy = tiles_of(a.layout.tail, M::T);
    const unsigned documents = (unsigned)a.layout.documents, heads = (unsigned)a.query_heads;
    const unsigned kv = (unsigned)a.kv_heads, entries = (unsigned)a.entries;
    const int64_t items = (int64_t)a.layout.documents * a.per * a.query_heads;
    delta_kernel<<<blocks_for(items, THREADS / 32), THREADS, 0, stream>>>(a, items);
    cudaError_t status =
        start(query_gradient_kernel<M>, dim3(clean + (a.ids ? 0 : noisy), heads, documents), bytes, stream, a);
    if (status == cudaSuccess && a.ids)
        status = start(query_gradient_entry_kernel<M>, dim3(tiles_of(a.layout.block * a.group, M::T), kv, entries),
                       bytes, stream, a);
    if (status == cudaSuccess)
        status = start(key_gradient_kernel<M>, dim3(clean + noisy, kv, documents), bytes, stream, a);
    if (status != cudaSuccess || !a.ids)
        return status;
    status = start(picked_gradient_kernel<M>, dim3(tiles_of(a.capacity, M::T), kv, entries), bytes, stream, a);
    if (status == cudaSuccess)
        status = cudaMemsetAsync(a.place, 0xff, (size_t)a.entries * kv * (size_t)a.layout.clean * sizeof(int32_t),
                                 stream);
    if (status == cudaSuccess)
        place_kernel<<<entries * kv, THREADS, 0, stream>>>(a);
    if (status == cudaSuccess)
        gather_picked_kernel<<<dim3((unsigned)a.layout.clean, documents), THREADS, 0, stream>>>(a);
    return status == cudaSuccess ? cudaGetLastError() : status;
}

static cudaError_t dispatch(const Arguments &a, bool reduced, cudaStream_t stream)
{
    if (a.layout.documents == 0)
        return cudaSuccess;
    if (a.dim <= 64)
        return reduced && a.dim == 64 ? backward<Rounded<64>>(a, stream) : backward<Exact<64, 64>>(a, stream);
    if (a.dim <= 128)
        return reduced && a.dim == 128 ? backward<Rounded<128>>(a, stream) : backward<Exact<128, 32>>(a, stream);
    return a.dim > 256 ? cudaErrorInvalidValue : backward<Exact<256, 32>>(a, stream);
}

static size_t padded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

extern "C" int mb_cuda_train_attend_gradient_plain(mb_device *device, const mb_train_attention *args)
{
    Arguments a = arguments_of(args);
    const size_t rows = (size_t)mb_train_rows(&args->layout), heads = (size_t)a.entries * (size_t)a.kv_heads;
    const size_t delta = padded(rows * (size_t)a.query_heads * sizeof(float));
    const size_t picked = a.ids ? padded(heads * (size_t)a.capacity * 2 * (size_t)a.dim * sizeof(float)) : 0;
    const size_t place = a.ids ? heads * (size_t)a.layout.clean * sizeof(int32_t) : 0;
    int rc = mb_cuda_train_work(device, "train_attend_gradient", delta + picked + place);
    if (rc != MB_OK)
        return rc;
    a.delta = (float *)device->workspace;
    a.picked = (float *)((char *)device->workspace + delta);
    a.place = (int32_t *)((char *)device->workspace + delta + picked);
    mb_cuda_part_begin(device, args->index ? MB_PART_SPARSE_ATTENTION : MB_PART_DENSE_ATTENTION);
    const cudaError_t status = dispatch(a, device->reduced, device->stream);
    mb_cuda_part_end(device);
    return mb_cuda_check(device, status, "train_attend_gradient");
}
