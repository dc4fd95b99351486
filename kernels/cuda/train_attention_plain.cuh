/*
 * train_attention_plain.cuh - attention over the training layout [clean | noisy] in fp32, for every shape: who
 * sees whom, tiles in shared memory, products of tiles. train_attention_plain.cu is the forward,
 * train_attention_plain_gradient.cu the gradient.
 *
 * A block of threads works on a tile of query rows against tiles of keys; a thread holds M x M results. What a
 * tile of queries reads is a span: consecutive rows of one head, whose keys are clean rows from the first on and
 * noisy rows of their own, or (with an index) the rows of one noisy block and all heads of a KV head, whose keys
 * are those of the index and the block's own. All sums have a fixed order.
 */
#ifndef MB_CUDA_TRAIN_ATTENTION_PLAIN_CUH
#define MB_CUDA_TRAIN_ATTENTION_PLAIN_CUH

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

#endif
