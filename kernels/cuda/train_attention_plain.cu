/*
 * train_attention_plain.cu - attention over the training layout [clean | noisy] and its gradient in fp32, for
 * every shape.
 *
 * A block of threads works on a tile of query rows against tiles of keys, both in shared memory; a thread holds
 * M x M results. What a tile of queries reads is a span: consecutive rows of one head, whose keys are clean rows
 * from the first on and noisy rows of their own, or (with an index) the rows of one noisy block and all heads of a
 * KV head, whose keys are those of the index and the block's own.
 * Gradients: one kernel for queries; one for keys, which goes through the queries that may see a tile of keys;
 * with an index one more, which leaves the gradient of each picked key by entry, and one that adds these up in the
 * order of the blocks. All sums have a fixed order.
 */
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/train.h"

using namespace mb_cuda;

namespace
{

constexpr int THREADS = 256;

struct Arguments {
    mb_train_layout layout;
    int query_heads, kv_heads, dim, group, width; /* width: floats of a row of qkv */
    int per, entries, blocks;                     /* rows of a document; noisy blocks in all, of a document */
    float scale;
    const float *qkv, *out, *dout;
    float *out_to, *lse, *dqkv, *mass;
    const int32_t *ids, *counts;
    int capacity;
    float *delta;   /* [rows][query_heads]: dO . O */
    float *picked;  /* [entries][kv_heads][capacity][2][dim]: gradients of the index's keys */
    int32_t *place; /* [entries][kv_heads][clean]: a key's place in the index, or -1 */
};

Arguments arguments_of(const mb_train_attention *args)
{
    Arguments a = {};
    const mb_train_layout &l = args->layout;
    a.layout = l;
    a.query_heads = args->query_heads;
    a.kv_heads = args->kv_heads;
    a.dim = args->head_dim;
    a.group = args->query_heads / args->kv_heads;
    a.width = (args->query_heads + 2 * args->kv_heads) * args->head_dim;
    a.per = l.clean + l.tail;
    a.blocks = l.tail / l.block;
    a.entries = l.documents * a.blocks;
    a.scale = 1.0f / sqrtf((float)args->head_dim);
    a.qkv = args->qkv;
    a.out = args->out;
    a.dout = args->dout;
    a.out_to = args->out;
    a.lse = args->lse;
    a.dqkv = args->dqkv;
    a.mass = args->mass;
    if (args->index && a.entries > 0) {
        a.ids = args->index->ids;
        a.counts = args->index->counts;
        a.capacity = args->index->capacity;
    }
    return a;
}

} // namespace

/* ---- who sees whom ---- */

/* A tile of queries of a document, and the keys that it may see. */
struct Span {
    int document, first,
        count; /* queries first .. first+count-1: rows of `head`, or (row, head) pairs of an entry */
    int head, kv_head;
    bool entry;             /* the queries are pairs (row, head of the group) of one noisy block */
    int origin;             /* entry: the block's first row in the document */
    int clean, noisy, keys; /* clean keys; the first noisy key's row; keys in all */
    const int32_t *ids;     /* NULL: clean keys are rows 0 .. clean-1 */
};

static __device__ __forceinline__ int position_of(const Arguments &a, int row)
{
    return row < a.layout.clean ? row : row - a.layout.tail;
}

/* Rows first .. first+count-1 of the document; they are all clean or all noisy. */
static __device__ Span span_of_rows(const Arguments &a, int document, int head, int first, int count)
{
    const int block = a.layout.block, last = position_of(a, first + count - 1) / block;
    Span s = {document, first, count, head, head / a.group, false, 0, 0, 0, 0, nullptr};
    if (first < a.layout.clean) {
        s.clean = s.keys = (last + 1) * block;
        return s;
    }
    s.clean = last * block;
    s.noisy = a.layout.clean + (first - a.layout.clean) / block * block;
    s.keys = s.clean + (a.layout.clean + ((first + count - 1 - a.layout.clean) / block + 1) * block - s.noisy);
    return s;
}

/* Pairs first .. of a noisy block against its index. */
static __device__ Span span_of_entry(const Arguments &a, int entry, int kv_head, int first, int most)
{
    const int pairs = a.layout.block * a.group, at = entry * a.kv_heads + kv_head;
    Span s = {entry / a.blocks, first, min(most, pairs - first), 0, kv_head, true, 0, 0, 0, 0, nullptr};
    s.origin = s.noisy = a.layout.clean + entry % a.blocks * a.layout.block;
    s.clean = a.counts ? a.counts[at] : position_of(a, s.origin);
    s.keys = s.clean + a.layout.block;
    s.ids = a.ids ? a.ids + (int64_t)at * a.capacity : nullptr;
    return s;
}

/* Row and head of a query. */
static __device__ __forceinline__ int query_of(const Arguments &a, const Span &s, int i, int *head)
{
    *head = s.entry ? s.kv_head * a.group + (s.first + i) % a.group : s.head;
    return s.entry ? s.origin + (s.first + i) / a.group : s.first + i;
}

static __device__ __forceinline__ int key_of(const Span &s, int i)
{
    return i >= s.clean ? s.noisy + i - s.clean : s.ids ? s.ids[i] : i;
}

/* By the three-part mask; an entry's keys are all seen. */
static __device__ __forceinline__ bool sees(const Arguments &a, bool entry, int query, int key)
{
    const int block = a.layout.block, clean = a.layout.clean;
    const int q = position_of(a, query) / block, k = position_of(a, key) / block;
    if (entry)
        return true;
    if (query < clean)
        return key < clean && k <= q;
    return key < clean ? k < q : k == q;
}

/* ---- tiles ---- */

template <int DIM, int T> struct Tile {
    static constexpr int M = T / 16, LINE = DIM + 4, SCORES = T + 4, COLUMNS = DIM / 16;
    float x[T][LINE];
};
template <int T> struct Scores {
    float x[T][T + 4];
};

/* c[i][j] = sum over dimensions of a[ty + 16 i] b[tx + 16 j]. */
template <int DIM, int T>
static __device__ __forceinline__ void dots(const Tile<DIM, T> &a, const Tile<DIM, T> &b,
                                            float (&c)[T / 16][T / 16])
{
    constexpr int M = T / 16;
    const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < M; j++)
            c[i][j] = 0.0f;
#pragma unroll 4
    for (int d = 0; d < DIM; d += 4) {
        float x[M][4], y[M][4];
#pragma unroll
        for (int i = 0; i < M; i++) {
            load4(&a.x[ty + 16 * i][d], x[i]);
            load4(&b.x[tx + 16 * i][d], y[i]);
        }
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int j = 0; j < M; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    c[i][j] += x[i][e] * y[j][e];
    }
}

/* c[i][j] += sum over k of p[ty + 16 i][k] v[k][column(j)]; column(j) = 64 (j/4) + 4 tx + j%4. */
template <int DIM, int T>
static __device__ __forceinline__ void products(const Scores<T> &p, const Tile<DIM, T> &v,
                                                float (&c)[T / 16][DIM / 16])
{
    constexpr int M = T / 16, GROUPS = DIM / 64;
    const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
#pragma unroll 2
    for (int k = 0; k < T; k += 4) {
        float x[M][4];
#pragma unroll
        for (int i = 0; i < M; i++)
            load4(&p.x[ty + 16 * i][k], x[i]);
#pragma unroll
        for (int e = 0; e < 4; e++)
#pragma unroll
            for (int g = 0; g < GROUPS; g++) {
                float y[4];
                load4(&v.x[k + e][64 * g + 4 * tx], y);
#pragma unroll
                for (int i = 0; i < M; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                        c[i][4 * g + j] += x[i][e] * y[j];
            }
    }
}

static __device__ __forceinline__ int column_of(int j)
{
    return 64 * (j >> 2) + 4 * (threadIdx.x & 15) + (j & 3);
}

/* Queries of a span, or their rows of dout, times factor; zeros behind. */
template <int DIM, int T>
static __device__ void load_queries(const Arguments &a, const Span &s, const float *from, int width, float factor,
                                    Tile<DIM, T> &tile)
{
    for (int i = threadIdx.x; i < T * DIM; i += THREADS) {
        const int r = i / DIM, c = i % DIM;
        float value = 0.0f;
        if (r < s.count && c < a.dim) {
            int head;
            const int row = query_of(a, s, r, &head);
            value = from[((int64_t)s.document * a.per + row) * width + head * a.dim + c] * factor;
        }
        tile.x[r][c] = value;
    }
}

/* Keys (part 0) or values (part 1) first .. of a span; zeros behind. */
template <int DIM, int T>
static __device__ void load_keys(const Arguments &a, const Span &s, int first, int part, Tile<DIM, T> &tile)
{
    const int offset = (a.query_heads + part * a.kv_heads + s.kv_head) * a.dim;
    for (int i = threadIdx.x; i < T * DIM; i += THREADS) {
        const int r = i / DIM, c = i % DIM;
        float value = 0.0f;
        if (first + r < s.keys && c < a.dim)
            value = a.qkv[((int64_t)s.document * a.per + key_of(s, first + r)) * a.width + offset + c];
        tile.x[r][c] = value;
    }
}

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

/* Tiles of clean rows, then those of noisy ones: a tile is never of both. */
static __device__ __forceinline__ bool tile_rows(const Arguments &a, int tile, int size, int *first, int *count)
{
    const int clean_tiles = (a.layout.clean + size - 1) / size;
    const bool clean = tile < clean_tiles;
    *first = clean ? tile * size : a.layout.clean + (tile - clean_tiles) * size;
    const int end = clean ? a.layout.clean : a.per;
    *count = min(size, end - *first);
    return clean;
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

/* ---- gradients ---- */

template <int DIM, int T> struct GradientShared {
    Tile<DIM, T> q, d, k, v;
    Scores<T> p, ds;
    float lse[T], delta[T];
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

template <int DIM, int T>
static __device__ void load_gradient_queries(const Arguments &a, const Span &s, GradientShared<DIM, T> &shared)
{
    load_queries<DIM, T>(a, s, a.qkv, a.width, a.scale, shared.q);
    load_queries<DIM, T>(a, s, a.dout, a.query_heads * a.dim, 1.0f, shared.d);
    if (threadIdx.x < T) {
        int head;
        const int64_t row =
            (int64_t)s.document * a.per + query_of(a, s, min((int)threadIdx.x, s.count - 1), &head);
        shared.lse[threadIdx.x] = a.lse[row * a.query_heads + head];
        shared.delta[threadIdx.x] = a.delta[row * a.query_heads + head];
    }
}

/* dQ = scale dS K with dS = P (dP - delta), dP = dO V^T. */
template <int DIM, int T> static __device__ void query_gradient(const Arguments &a, const Span &s, float *memory)
{
    constexpr int M = T / 16, COLUMNS = DIM / 16;
    GradientShared<DIM, T> &shared = *reinterpret_cast<GradientShared<DIM, T> *>(memory);
    const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
    float c[M][M], dp[M][M], dq[M][COLUMNS] = {};
    load_gradient_queries<DIM, T>(a, s, shared);
    for (int first = 0; first < s.keys; first += T) {
        __syncthreads();
        load_keys<DIM, T>(a, s, first, 0, shared.k);
        load_keys<DIM, T>(a, s, first, 1, shared.v);
        __syncthreads();
        dots<DIM, T>(shared.q, shared.k, c);
        dots<DIM, T>(shared.d, shared.v, dp);
#pragma unroll
        for (int i = 0; i < M; i++) {
            int head, row = query_of(a, s, min(ty + 16 * i, s.count - 1), &head);
#pragma unroll
            for (int j = 0; j < M; j++) {
                const int key = first + tx + 16 * j;
                const bool seen = key < s.keys && sees(a, s.entry, row, key_of(s, key));
                shared.ds.x[ty + 16 * i][tx + 16 * j] =
                    seen ? expf(c[i][j] - shared.lse[ty + 16 * i]) * (dp[i][j] - shared.delta[ty + 16 * i]) : 0.0f;
            }
        }
        __syncthreads();
        products<DIM, T>(shared.ds, shared.k, dq);
    }
#pragma unroll
    for (int i = 0; i < M; i++) {
        if (ty + 16 * i >= s.count)
            continue;
        int head;
        const int64_t row = (int64_t)s.document * a.per + query_of(a, s, ty + 16 * i, &head);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            if (column_of(j) < a.dim)
                a.dqkv[row * a.width + head * a.dim + column_of(j)] = dq[i][j] * a.scale;
    }
}

template <int DIM, int T> static __global__ void __launch_bounds__(THREADS) query_gradient_kernel(Arguments a)
{
    extern __shared__ float memory[];
    int first, count;
    tile_rows(a, (int)(gridDim.x - 1 - blockIdx.x), T, &first, &count);
    query_gradient<DIM, T>(a, span_of_rows(a, (int)blockIdx.z, (int)blockIdx.y, first, count), memory);
}

template <int DIM, int T>
static __global__ void __launch_bounds__(THREADS) query_gradient_entry_kernel(Arguments a)
{
    extern __shared__ float memory[];
    query_gradient<DIM, T>(a, span_of_entry(a, (int)blockIdx.z, (int)blockIdx.y, (int)blockIdx.x * T, T), memory);
}

/* What a tile of queries adds to the keys in shared memory: dV += P^T dO, dK += dS^T Q (Q scaled). keys: a span
 * whose keys first .. are those. Ends with a barrier. */
template <int DIM, int T>
static __device__ void add_queries(const Arguments &a, const Span &queries, const Span &keys, int first,
                                   GradientShared<DIM, T> &shared, float (&dk)[T / 16][DIM / 16],
                                   float (&dv)[T / 16][DIM / 16])
{
    constexpr int M = T / 16;
    const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
    float c[M][M], dp[M][M];
    load_gradient_queries<DIM, T>(a, queries, shared);
    __syncthreads();
    dots<DIM, T>(shared.k, shared.q, c);
    dots<DIM, T>(shared.v, shared.d, dp);
#pragma unroll
    for (int i = 0; i < M; i++) {
        const int key = min(first + ty + 16 * i, keys.keys - 1), key_row = key_of(keys, key);
#pragma unroll
        for (int j = 0; j < M; j++) {
            const int r = tx + 16 * j;
            int head;
            const int row = query_of(a, queries, min(r, queries.count - 1), &head);
            const bool seen =
                r < queries.count && first + ty + 16 * i < keys.keys && sees(a, queries.entry, row, key_row);
            const float p = seen ? expf(c[i][j] - shared.lse[r]) : 0.0f;
            shared.p.x[ty + 16 * i][r] = p;
            shared.ds.x[ty + 16 * i][r] = seen ? p * (dp[i][j] - shared.delta[r]) : 0.0f;
        }
    }
    __syncthreads();
    products<DIM, T>(shared.p, shared.d, dv);
    products<DIM, T>(shared.ds, shared.q, dk);
    __syncthreads();
}

/* Grid (tiles of keys, KV heads, documents): the gradient of a tile of rows as keys, by all queries that read them
 * without an index. */
template <int DIM, int T> static __global__ void __launch_bounds__(THREADS) key_gradient_kernel(Arguments a)
{
    extern __shared__ float memory[];
    GradientShared<DIM, T> &shared = *reinterpret_cast<GradientShared<DIM, T> *>(memory);
    constexpr int M = T / 16, COLUMNS = DIM / 16;
    const int document = blockIdx.z, kv_head = blockIdx.y, block = a.layout.block;
    const int ty = threadIdx.x >> 4;
    int first, count;
    const bool clean = tile_rows(a, (int)blockIdx.x, T, &first, &count);
    const int tiles = (a.layout.clean + T - 1) / T + (a.layout.tail + T - 1) / T;
    float dk[M][COLUMNS] = {}, dv[M][COLUMNS] = {};
    /* The tile's rows as keys of a span: keys 0 .. count-1 are rows first .. */
    const Span keys = {document, 0, 0, 0, kv_head, false, 0, 0, first, count, nullptr};
    load_keys<DIM, T>(a, keys, 0, 0, shared.k);
    load_keys<DIM, T>(a, keys, 0, 1, shared.v);
    __syncthreads();
    const int low = position_of(a, first) / block, high = position_of(a, first + count - 1) / block;
    for (int g = 0; g < a.group; g++)
        for (int tile = 0; tile < tiles; tile++) {
            int row, rows;
            const bool clean_rows = tile_rows(a, tile, T, &row, &rows);
            const int from = position_of(a, row) / block, to = position_of(a, row + rows - 1) / block;
            const bool met =
                clean ? clean_rows ? to >= low : to > low && !a.ids : !clean_rows && from <= high && to >= low;
            if (met)
                add_queries<DIM, T>(a, span_of_rows(a, document, kv_head * a.group + g, row, rows), keys, 0,
                                    shared, dk, dv);
        }
#pragma unroll
    for (int i = 0; i < M; i++) {
        if (ty + 16 * i >= count)
            continue;
        float *to = a.dqkv + ((int64_t)document * a.per + first + ty + 16 * i) * a.width + a.query_heads * a.dim;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            if (column_of(j) < a.dim) {
                to[kv_head * a.dim + column_of(j)] = dk[i][j];
                to[(a.kv_heads + kv_head) * a.dim + column_of(j)] = dv[i][j];
            }
    }
}

/* Grid (tiles of picked keys, KV heads, entries): what an entry's queries add to the keys of its index. */
template <int DIM, int T> static __global__ void __launch_bounds__(THREADS) picked_gradient_kernel(Arguments a)
{
    extern __shared__ float memory[];
    GradientShared<DIM, T> &shared = *reinterpret_cast<GradientShared<DIM, T> *>(memory);
    constexpr int M = T / 16, COLUMNS = DIM / 16;
    const int entry = blockIdx.z, kv_head = blockIdx.y, first = (int)blockIdx.x * T,
              pairs = a.layout.block * a.group;
    const int ty = threadIdx.x >> 4;
    Span keys = span_of_entry(a, entry, kv_head, 0, T);
    keys.keys = keys.clean;
    if (first >= keys.keys)
        return;
    float dk[M][COLUMNS] = {}, dv[M][COLUMNS] = {};
    load_keys<DIM, T>(a, keys, first, 0, shared.k);
    load_keys<DIM, T>(a, keys, first, 1, shared.v);
    __syncthreads();
    for (int at = 0; at < pairs; at += T)
        add_queries<DIM, T>(a, span_of_entry(a, entry, kv_head, at, T), keys, first, shared, dk, dv);
#pragma unroll
    for (int i = 0; i < M; i++) {
        if (first + ty + 16 * i >= keys.keys)
            continue;
        float *to =
            a.picked + (((int64_t)entry * a.kv_heads + kv_head) * a.capacity + first + ty + 16 * i) * 2 * a.dim;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            if (column_of(j) < a.dim) {
                to[column_of(j)] = dk[i][j];
                to[a.dim + column_of(j)] = dv[i][j];
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

template <typename Kernel>
static cudaError_t start(Kernel kernel, dim3 grid, size_t bytes, cudaStream_t stream, const Arguments &a)
{
    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        return cudaSuccess;
    if (grid.y > 65535 || grid.z > 65535)
        return cudaErrorInvalidValue;
    cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (status != cudaSuccess)
        return status;
    kernel<<<grid, THREADS, bytes, stream>>>(a);
    return cudaGetLastError();
}

static unsigned tiles_of(int n, int size)
{
    return (unsigned)((n + size - 1) / size);
}

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

template <int DIM, int T> static cudaError_t backward(const Arguments &a, cudaStream_t stream)
{
    const size_t bytes = sizeof(GradientShared<DIM, T>);
    const unsigned clean = tiles_of(a.layout.clean, T), noisy = tiles_of(a.layout.tail, T);
    const unsigned documents = (unsigned)a.layout.documents, heads = (unsigned)a.query_heads;
    const unsigned kv = (unsigned)a.kv_heads, entries = (unsigned)a.entries;
    const int64_t items = (int64_t)a.layout.documents * a.per * a.query_heads;
    delta_kernel<<<blocks_for(items, THREADS / 32), THREADS, 0, stream>>>(a, items);
    cudaError_t status = start(query_gradient_kernel<DIM, T>, dim3(clean + (a.ids ? 0 : noisy), heads, documents),
                               bytes, stream, a);
    if (status == cudaSuccess && a.ids)
        status = start(query_gradient_entry_kernel<DIM, T>,
                       dim3(tiles_of(a.layout.block * a.group, T), kv, entries), bytes, stream, a);
    if (status == cudaSuccess)
        status = start(key_gradient_kernel<DIM, T>, dim3(clean + noisy, kv, documents), bytes, stream, a);
    if (status != cudaSuccess || !a.ids)
        return status;
    status = start(picked_gradient_kernel<DIM, T>, dim3(tiles_of(a.capacity, T), kv, entries), bytes, stream, a);
    if (status == cudaSuccess)
        status = cudaMemsetAsync(a.place, 0xff, (size_t)a.entries * kv * (size_t)a.layout.clean * sizeof(int32_t),
                                 stream);
    if (status == cudaSuccess)
        place_kernel<<<entries * kv, THREADS, 0, stream>>>(a);
    if (status == cudaSuccess)
        gather_picked_kernel<<<dim3((unsigned)a.layout.clean, documents), THREADS, 0, stream>>>(a);
    return status == cudaSuccess ? cudaGetLastError() : status;
}

template <bool FORWARD> static cudaError_t dispatch(const Arguments &a, cudaStream_t stream)
{
    if (a.layout.documents == 0)
        return cudaSuccess;
    if (a.dim <= 64)
        return FORWARD ? forward<64, 64>(a, stream) : backward<64, 64>(a, stream);
    if (a.dim <= 128)
        return FORWARD ? forward<128, 32>(a, stream) : backward<128, 32>(a, stream);
    return a.dim > 256 ? cudaErrorInvalidValue
           : FORWARD   ? forward<256, 32>(a, stream)
                       : backward<256, 32>(a, stream);
}

static size_t padded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

extern "C" int mb_cuda_train_attend_plain(mb_device *device, const mb_train_attention *args)
{
    mb_cuda_part_begin(device, args->index ? MB_PART_SPARSE_ATTENTION : MB_PART_DENSE_ATTENTION);
    const cudaError_t status = dispatch<true>(arguments_of(args), device->stream);
    mb_cuda_part_end(device);
    return mb_cuda_check(device, status, "train_attend");
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
    const cudaError_t status = dispatch<false>(a, device->stream);
    mb_cuda_part_end(device);
    return mb_cuda_check(device, status, "train_attend_gradient");
}
