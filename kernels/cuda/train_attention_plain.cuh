/*
 * train_attention_plain.cuh - attention over the training layout [clean | noisy] for every shape: who sees whom,
 * tiles in shared memory, products of tiles. train_attention_plain.cu is the forward,
 * train_attention_plain_gradient.cu the gradient.
 *
 * A block of threads works on a tile of query rows against tiles of keys. What a tile of queries reads is a span:
 * consecutive rows of one head, whose keys are clean rows from the first on and noisy rows of their own, or (with
 * an index) the rows of one noisy block and all heads of a KV head, whose keys are those of the index and the
 * block's own. All sums have a fixed order. How products of tiles are computed is a template parameter: Exact in
 * fp32, Rounded with operands in bf16 on the tensor cores.
 */
#ifndef MB_CUDA_TRAIN_ATTENTION_PLAIN_CUH
#define MB_CUDA_TRAIN_ATTENTION_PLAIN_CUH

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/mma.cuh"
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

/* The three-part mask as numbers. A key has a code: its block, NOISY + that of a noisy key, OUTSIDE behind the
 * last key. A query sees codes below its limit, and its own. An entry's keys are all seen: code 0. */
constexpr int NOISY = 1 << 28, OUTSIDE = 1 << 30;

static __device__ __forceinline__ int code_of(const Arguments &a, const Span &s, int i)
{
    if (i >= s.keys)
        return OUTSIDE;
    const int row = key_of(s, i), block = position_of(a, row) / a.layout.block;
    return s.entry ? 0 : row < a.layout.clean ? block : NOISY + block;
}

struct Sight {
    int limit, own;
};

static __device__ __forceinline__ Sight sight_of(const Arguments &a, const Span &s, int i)
{
    int head;
    if (i >= s.count)
        return {0, -1};
    if (s.entry)
        return {1, -1};
    const int row = query_of(a, s, i, &head), block = position_of(a, row) / a.layout.block;
    return row < a.layout.clean ? Sight{block + 1, -1} : Sight{block, NOISY + block};
}

static __device__ __forceinline__ bool sees(const Sight &query, int code)
{
    return code < query.limit || code == query.own;
}

/* ---- tiles ---- */

/* Products of tiles of T rows. A thread holds results [ROWS][SCORES] of row_of(i) and column_of(j), or
 * [ROWS][COLUMNS] of row_of(i) and dimension_of(j). dots: c = a b^T. products: c += p v. */
template <int DIM_, int T_> struct Exact {
    static constexpr int DIM = DIM_, T = T_, ROWS = T / 16, SCORES = T / 16, COLUMNS = DIM / 16;
    struct Tile {
        float x[T][DIM + 4];
    };
    struct Scores {
        float x[T][T + 4];
    };

    static __device__ __forceinline__ int row_of(int i)
    {
        return (int)(threadIdx.x >> 4) + 16 * i;
    }
    static __device__ __forceinline__ int column_of(int j)
    {
        return (int)(threadIdx.x & 15) + 16 * j;
    }
    static __device__ __forceinline__ int dimension_of(int j)
    {
        return 64 * (j >> 2) + 4 * (int)(threadIdx.x & 15) + (j & 3);
    }
    static __device__ __forceinline__ void put4(Tile &tile, int r, int c, const float (&v)[4])
    {
        store4(&tile.x[r][c], v);
    }
    static __device__ __forceinline__ void put_row(Scores &p, int i, const float (&c)[SCORES])
    {
#pragma unroll
        for (int j = 0; j < SCORES; j++)
            p.x[row_of(i)][column_of(j)] = c[j];
    }

    static __device__ __forceinline__ void dots(const Tile &a, const Tile &b, float (&c)[ROWS][SCORES])
    {
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < SCORES; j++)
                c[i][j] = 0.0f;
#pragma unroll 4
        for (int d = 0; d < DIM; d += 4) {
            float x[ROWS][4], y[SCORES][4];
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                load4(&a.x[row_of(i)][d], x[i]);
                load4(&b.x[column_of(i)][d], y[i]);
            }
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int j = 0; j < SCORES; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        c[i][j] += x[i][e] * y[j][e];
        }
    }

    static __device__ __forceinline__ void products(const Scores &p, const Tile &v, float (&c)[ROWS][COLUMNS])
    {
#pragma unroll 2
        for (int k = 0; k < T; k += 4) {
            float x[ROWS][4];
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                load4(&p.x[row_of(i)][k], x[i]);
#pragma unroll
            for (int e = 0; e < 4; e++)
#pragma unroll
                for (int g = 0; g < COLUMNS; g += 4) {
                    float y[4];
                    load4(&v.x[k + e][dimension_of(g)], y);
#pragma unroll
                    for (int i = 0; i < ROWS; i++)
#pragma unroll
                        for (int j = 0; j < 4; j++)
                            c[i][g + j] += x[i][e] * y[j];
                }
        }
    }

    /* Over the threads that share a row; every one gets it. exchange: 2 T floats; unused here. */
    static __device__ __forceinline__ void row_max(float (&x)[ROWS], float *)
    {
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            for (int offset = 8; offset; offset >>= 1)
                x[i] = fmaxf(x[i], __shfl_xor_sync(0xffffffffu, x[i], offset));
    }
    static __device__ __forceinline__ void row_sum(float (&x)[ROWS], float *)
    {
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            for (int offset = 8; offset; offset >>= 1)
                x[i] += __shfl_xor_sync(0xffffffffu, x[i], offset);
    }
};

/* Tiles of 64 rows in bf16: four warps of 16 rows each, twice, for the two halves of the columns. */
template <int DIM_> struct Rounded {
    static constexpr int DIM = DIM_, T = 64, ROWS = 2, SCORES = 8, COLUMNS = DIM / 8;
    struct Tile {
        alignas(16) __nv_bfloat16 x[T][DIM + 8];
    };
    struct Scores {
        alignas(16) __nv_bfloat16 x[T][T + 8];
    };

    static __device__ __forceinline__ int lane()
    {
        return (int)threadIdx.x & 31;
    }
    static __device__ __forceinline__ int first_row()
    {
        return 16 * ((int)(threadIdx.x >> 5) & 3);
    }
    static __device__ __forceinline__ int half()
    {
        return (int)(threadIdx.x >> 7);
    }
    static __device__ __forceinline__ int row_of(int i)
    {
        return first_row() + (lane() >> 2) + 8 * i;
    }
    static __device__ __forceinline__ int column_of(int j)
    {
        return 32 * half() + 8 * (j >> 1) + 2 * (lane() & 3) + (j & 1);
    }
    static __device__ __forceinline__ int dimension_of(int j)
    {
        return DIM / 2 * half() + 8 * (j >> 1) + 2 * (lane() & 3) + (j & 1);
    }
    static __device__ __forceinline__ void put4(Tile &tile, int r, int c, const float (&v)[4])
    {
        store4(&tile.x[r][c], v);
    }
    static __device__ __forceinline__ void put_row(Scores &p, int i, const float (&c)[SCORES])
    {
#pragma unroll
        for (int j = 0; j < SCORES; j += 2)
            *(uint32_t *)&p.x[row_of(i)][column_of(j)] = pack<__nv_bfloat16>(c[j], c[j + 1]);
    }

    /* c[16 x 16] of columns j .. j+3 += a b with the two tiles of eight columns in b. */
    template <int N>
    static __device__ __forceinline__ void multiply_pair(float (&c)[ROWS][N], int j, const uint32_t (&a)[4],
                                                         const uint32_t (&b)[4])
    {
#pragma unroll
        for (int t = 0; t < 2; t++) {
            float d[4] = {c[0][j + 2 * t], c[0][j + 2 * t + 1], c[1][j + 2 * t], c[1][j + 2 * t + 1]};
            multiply<__nv_bfloat16>(d, a, b[2 * t], b[2 * t + 1]);
            c[0][j + 2 * t] = d[0];
            c[0][j + 2 * t + 1] = d[1];
            c[1][j + 2 * t] = d[2];
            c[1][j + 2 * t + 1] = d[3];
        }
    }

    static __device__ __forceinline__ void dots(const Tile &a, const Tile &b, float (&c)[ROWS][SCORES])
    {
#pragma unroll
        for (int j = 0; j < SCORES; j++)
            c[0][j] = c[1][j] = 0.0f;
#pragma unroll
        for (int k = 0; k < DIM; k += 16) {
            uint32_t x[4], y[4];
            load_matrix4(x, shared_address(&a.x[first_row() + (lane() & 15)][k + 8 * (lane() >> 4)]));
#pragma unroll
            for (int n = 0; n < 32; n += 16) {
                load_matrix4(
                    y, shared_address(
                           &b.x[32 * half() + n + (lane() & 7) + 8 * (lane() >> 4)][k + 8 * ((lane() >> 3) & 1)]));
                multiply_pair<SCORES>(c, n / 4, x, y);
            }
        }
    }

    static __device__ __forceinline__ void products(const Scores &p, const Tile &v, float (&c)[ROWS][COLUMNS])
    {
#pragma unroll
        for (int k = 0; k < T; k += 16) {
            uint32_t x[4], y[4];
            load_matrix4(x, shared_address(&p.x[first_row() + (lane() & 15)][k + 8 * (lane() >> 4)]));
#pragma unroll
            for (int n = 0; n < DIM / 2; n += 16) {
                load_matrix4_transposed(y, shared_address(&v.x[k + (lane() & 7) + 8 * ((lane() >> 3) & 1)]
                                                              [DIM / 2 * half() + n + 8 * (lane() >> 4)]));
                multiply_pair<COLUMNS>(c, n / 4, x, y);
            }
        }
    }

    /* The two halves of a row are two warps': they meet in shared memory. */
    static __device__ __forceinline__ void row_max(float (&x)[ROWS], float *exchange)
    {
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            exchange[T * half() + row_of(i)] = quad_max(x[i]);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            x[i] = fmaxf(exchange[row_of(i)], exchange[T + row_of(i)]);
    }
    static __device__ __forceinline__ void row_sum(float (&x)[ROWS], float *exchange)
    {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            exchange[T * half() + row_of(i)] = quad_sum(x[i]);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            x[i] = exchange[row_of(i)] + exchange[T + row_of(i)];
    }
};

/* T rows of `dim` floats times factor, zeros behind; from(r): where row r begins, or NULL. */
template <typename M, typename From>
static __device__ __forceinline__ void load_rows(int dim, float factor, From from, typename M::Tile &tile)
{
    for (int i = threadIdx.x; i < M::T * M::DIM / 4; i += THREADS) {
        const int r = i / (M::DIM / 4), c = i % (M::DIM / 4) * 4;
        const float *at = c < dim ? from(r) : nullptr;
        float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (at && dim % 4 == 0)
            load4(at + c, v);
        else if (at)
            for (int e = 0; e < 4 && c + e < dim; e++)
                v[e] = at[c + e];
#pragma unroll
        for (int e = 0; e < 4; e++)
            v[e] *= factor;
        M::put4(tile, r, c, v);
    }
}

/* Queries of a span, or their rows of dout, times factor. */
template <typename M>
static __device__ void load_queries(const Arguments &a, const Span &s, const float *from, int width, float factor,
                                    typename M::Tile &tile)
{
    load_rows<M>(
        a.dim, factor,
        [&](int r) -> const float * {
            int head;
            if (r >= s.count)
                return nullptr;
            const int row = query_of(a, s, r, &head);
            return from + ((int64_t)s.document * a.per + row) * width + head * a.dim;
        },
        tile);
}

/* Keys (part 0) or values (part 1) first .. of a span. */
template <typename M>
static __device__ void load_keys(const Arguments &a, const Span &s, int first, int part, typename M::Tile &tile)
{
    const int offset = (a.query_heads + part * a.kv_heads + s.kv_head) * a.dim;
    load_rows<M>(
        a.dim, 1.0f,
        [&](int r) -> const float * {
            if (first + r >= s.keys)
                return nullptr;
            return a.qkv + ((int64_t)s.document * a.per + key_of(s, first + r)) * a.width + offset;
        },
        tile);
}

/* The codes of keys first .. of a span. */
template <typename M> static __device__ void load_codes(const Arguments &a, const Span &s, int first, int *codes)
{
    if (threadIdx.x < M::T)
        codes[threadIdx.x] = code_of(a, s, first + (int)threadIdx.x);
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
