/*
 * pages.cu - scores of keys and pages that need no softmax over keys: page bounds, the upper bound of q.k over a
 * page (arXiv 2406.10774, section 3), mean logits over chosen channels.
 *
 * ub = sum_c max(q_c M_c, q_c m_c) = q+ . M - q- . m. It is linear in (q+, q-), so the mean over the R rows is one
 * vector against every page: a pass over the bounds at memory speed, with no matrix product. Maximum and softmax
 * over rows are not linear: those go tile by tile with all rows.
 */
#include "kernels/cuda/common.cuh"

using namespace mb_cuda;

/* ---- bounds ---- */

struct BoundsArgs {
    const void *k;
    void *bounds;
    const int32_t *prefix_len;
    int32_t kv_heads, capacity, dim, block_keys, page, page_capacity, whole;
};

constexpr int BOUNDS_THREADS = 256;

/* V consecutive elements: one access where V is 8. */
template <int V, typename T> __device__ __forceinline__ void load_some(const T *p, float (&x)[V])
{
    if constexpr (V == 8) {
        load8(p, x);
    } else {
        static_assert(V == 1, "one access, or one element");
        x[0] = load(p);
    }
}

template <int V, typename T> __device__ __forceinline__ void store_some(T *p, const float (&x)[V])
{
    if constexpr (V == 8) {
        store4(p, x);
        store4(p + 4, x + 4);
    } else {
        store(p, x[0]);
    }
}

/* V channels a thread; the threads of a block take dim / V channel groups of as many pages as fit. */
template <typename T, int V> __global__ void __launch_bounds__(BOUNDS_THREADS) bounds_kernel(BoundsArgs a)
{
    int bh = blockIdx.y, prefix = a.prefix_len[bh / a.kv_heads], groups = a.dim / V, c = threadIdx.x % groups * V;
    int end = a.whole ? prefix : prefix + a.block_keys;
    end = end < a.capacity ? end : a.capacity;
    int each = BOUNDS_THREADS / groups;
    int64_t p = (a.whole ? 0 : prefix / a.page) + (int64_t)blockIdx.x * each + threadIdx.x / groups;
    int64_t last = (p + 1) * a.page < end ? (p + 1) * a.page : end;
    if ((int)threadIdx.x >= each * groups || p * a.page >= end || p >= a.page_capacity)
        return;
    const T *k = (const T *)a.k + (int64_t)bh * a.capacity * a.dim + c;
    float most[V], least[V];
    for (int i = 0; i < V; i++) {
        most[i] = -INFINITY;
        least[i] = INFINITY;
    }
#pragma unroll 8
    for (int64_t j = p * a.page; j < last; j++) {
        float x[V];
        load_some<V>(k + j * a.dim, x);
#pragma unroll
        for (int i = 0; i < V; i++) {
            most[i] = fmaxf(most[i], x[i]); /* NaN loses */
            least[i] = fminf(least[i], x[i]);
        }
    }
    T *to = (T *)a.bounds + ((int64_t)bh * a.page_capacity + p) * 2 * a.dim + c;
    store_some<V>(to, most);
    store_some<V>(to + a.dim, least);
}

template <typename T, int V>
static void launch_bounds(cudaStream_t stream, const BoundsArgs &a, int64_t pages, int heads)
{
    int each = BOUNDS_THREADS / (a.dim / V);
    bounds_kernel<T, V><<<dim3(blocks_for(pages, each), heads), BOUNDS_THREADS, 0, stream>>>(a);
}

MB_CUDA_OPERATION(page_bounds, mb_page_bounds, MB_PART_SELECTION)
{
    cudaStream_t stream = device->stream;
    mb_type type = device->type;
    const mb_rows *rows = &args->rows;
    const mb_kv *kv = &args->kv;
    int32_t page = args->page, page_capacity = args->page_capacity, whole = args->whole;
    void *bounds = args->bounds;
    BoundsArgs a = {kv->k, bounds, rows->prefix_len, kv->kv_heads, kv->capacity, kv->head_dim, rows->block_keys, page,
                    page_capacity, whole};
    if (page < 1 || kv->head_dim > BOUNDS_THREADS)
        return cudaErrorInvalidValue;
    int64_t pages = whole ? ((int64_t)rows->max_prefix + page - 1) / page : rows->block_keys / page + 2;
    int heads = rows->batch * kv->kv_heads;
    if (pages > 0)
        MB_WITH_TYPE(type, if (a.dim % 8 == 0) launch_bounds<T, 8>(stream, a, pages, heads);
                     else launch_bounds<T, 1>(stream, a, pages, heads));
    return cudaGetLastError();
}

/* ---- mean query rows ---- */

struct RowsArgs {
    const void *q;
    const float *row_weight;
    const int32_t *prefix_len, *active;
    int32_t rows, query_heads, kv_heads, group, dim;
    float scale;
};

static RowsArgs rows_of(const mb_attention *args)
{
    return {args->q, args->row_weight, args->rows.prefix_len, args->active, args->rows.rows, args->query_heads,
            args->kv.kv_heads, args->query_heads / args->kv.kv_heads, args->kv.head_dim,
            1.0f / sqrtf((float)args->kv.head_dim)};
}

__device__ __forceinline__ float weight_of(const RowsArgs &a, int b, int r)
{
    return a.row_weight ? a.row_weight[(int64_t)b * a.rows + r] : 1.0f;
}

constexpr int MEAN_LOADS = 8;

/* means[bh][2*dim] = weighted means of q+ and of -q-; split 0: [dim] mean of q itself, then split by sign.
 * plain: only the mean query, [dim]. V channels a thread, `pieces` threads a channel, each with every pieces-th
 * row: a handful, so that all loads are under way at once. The partial sums are added in order. */
template <typename T, int V>
__global__ void __launch_bounds__(V == 8 ? 512 : 1024) means_kernel(RowsArgs a, int split, int plain, float *means)
{
    extern __shared__ float part[]; /* [pieces][2][dim], then weights [rows] */
    int bh = blockIdx.x, b = bh / a.kv_heads, h = bh % a.kv_heads, c = threadIdx.x * V, piece = threadIdx.y;
    int count = a.rows * a.group, pieces = blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
    float plus[V] = {}, minus[V] = {}, total = 0.0f, *weights = part + pieces * 2 * a.dim;
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
    for (int r = thread; r < a.rows; r += blockDim.x * pieces)
        weights[r] = weight_of(a, b, r);
    __syncthreads();
    for (int first = piece; first < count; first += pieces * MEAN_LOADS) {
        float x[MEAN_LOADS][V], w[MEAN_LOADS];
#pragma unroll
        for (int n = 0; n < MEAN_LOADS; n++) {
            int i = first + n * pieces, r = i / a.group, g = i % a.group;
            w[n] = i < count ? weights[r] : 0.0f;
            if (i < count)
                load_some<V>((const T *)a.q +
                                 (((int64_t)b * a.rows + r) * a.query_heads + h * a.group + g) * a.dim + c,
                             x[n]);
        }
#pragma unroll
        for (int n = 0; n < MEAN_LOADS; n++)
#pragma unroll
            for (int e = 0; e < V; e++) {
                plus[e] += w[n] == 0.0f ? 0.0f : w[n] * (split ? fmaxf(x[n][e], 0.0f) : x[n][e]);
                minus[e] += w[n] == 0.0f ? 0.0f : w[n] * fminf(x[n][e], 0.0f);
            }
    }
    for (int e = 0; e < V; e++) {
        part[(piece * 2 + 0) * a.dim + c + e] = plus[e];
        part[(piece * 2 + 1) * a.dim + c + e] = minus[e];
    }
    __syncthreads();
    for (int r = 0; r < a.rows; r++)
        total += weights[r];
    total *= (float)a.group;
    for (int at = thread; at < a.dim; at += blockDim.x * pieces) {
        float up = 0.0f, down = 0.0f;
#pragma unroll 8
        for (int i = 0; i < pieces; i++) {
            up += part[(i * 2 + 0) * a.dim + at];
            down += part[(i * 2 + 1) * a.dim + at];
        }
        up = total > 0.0f ? up / total : 0.0f;
        down = total > 0.0f ? down / total : 0.0f;
        if (plain) {
            means[(int64_t)bh * a.dim + at] = up;
            continue;
        }
        means[(int64_t)bh * 2 * a.dim + at] = split ? up : fmaxf(up, 0.0f);
        means[(int64_t)bh * 2 * a.dim + a.dim + at] = split ? down : fminf(up, 0.0f);
    }
}

template <typename T>
static void launch_means(cudaStream_t stream, const RowsArgs &a, int heads, int split, int plain, float *means)
{
    bool wide = a.dim % 8 == 0;
    int across = wide ? a.dim / 8 : a.dim, room = 4096 / a.dim, most = 1024 / across; /* 32 KB, 1024 threads */
    dim3 block(across, room < most ? room : most);
    size_t shared = ((size_t)block.y * 2 * a.dim + a.rows) * sizeof(float);
    if (wide)
        means_kernel<T, 8><<<heads, block, shared, stream>>>(a, split, plain, means);
    else
        means_kernel<T, 1><<<heads, block, shared, stream>>>(a, split, plain, means);
}

/* ---- one vector against many rows of memory ---- */

struct DotArgs {
    const void *rows;         /* [heads][capacity][width] */
    const float *vectors;     /* [heads][width] */
    const int32_t *prefix_len, *active;
    float *scores;
    int64_t stride, entries;
    int32_t kv_heads, page, capacity, width;
};

/* Eight lanes share a row, 16 bytes a lane and access, so that an access of a warp is four whole lines of 128
 * bytes and three shuffles finish four rows. A warp has DOT_LOADS accesses under way before it uses the first. */
constexpr int DOT_WARPS = 8, DOT_LANES = 8, DOT_LOADS = 12;

/* Rows that eight lanes have under way: DOT_LOADS accesses, at most one row a lane. */
template <int ITEMS> constexpr int dot_rows = ITEMS == 1 ? 8 : ITEMS < DOT_LOADS ? DOT_LOADS / ITEMS : 1;

/* 16 bytes of a row, as they came; an element whose coefficient is 0 counts 0 even when it is NaN. */
struct Piece {
    uint4 x;
};

/* Elements of 16 bytes of T. */
template <typename T> constexpr int piece_size = 16 / (int)sizeof(T);

template <typename T, bool ALIGNED> __device__ __forceinline__ Piece load_piece(const T *p, int left)
{
    Piece piece = {make_uint4(0, 0, 0, 0)};
    if (ALIGNED) {
        if (left > 0)
            piece.x = __ldcs((const uint4 *)p);
    } else {
        for (int i = 0; i < piece_size<T> && i < left; i++)
            ((T *)&piece.x)[i] = p[i];
    }
    return piece;
}

__device__ __forceinline__ float dot_piece(const Piece &piece, const float *v, const uint32_t *keep, float sum,
                                           const float *)
{
    const uint32_t words[4] = {piece.x.x, piece.x.y, piece.x.z, piece.x.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        sum = fmaf(v[i], __uint_as_float(words[i] & keep[i]), sum);
    return sum;
}
__device__ __forceinline__ float dot_piece(const Piece &piece, const float *v, const uint32_t *keep, float sum,
                                           const __nv_bfloat16 *)
{
    const uint32_t words[4] = {piece.x.x, piece.x.y, piece.x.z, piece.x.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sum = fmaf(v[2 * i], __uint_as_float((words[i] & keep[i]) << 16), sum);
        sum = fmaf(v[2 * i + 1], __uint_as_float(words[i] & keep[i] & 0xffff0000u), sum);
    }
    return sum;
}
__device__ __forceinline__ float dot_piece(const Piece &piece, const float *v, const uint32_t *keep, float sum,
                                           const __half *)
{
    const uint32_t words[4] = {piece.x.x, piece.x.y, piece.x.z, piece.x.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t kept = words[i] & keep[i];
        float2 pair = __half22float2(*(const __half2 *)&kept);
        sum = fmaf(v[2 * i], pair.x, sum);
        sum = fmaf(v[2 * i + 1], pair.y, sum);
    }
    return sum;
}

/* The kernel is launched while the means are still being computed (where the chip can): its first rows are under
 * way by then. Everything else it reads was complete before the means began. */
__device__ __forceinline__ void wait_for_means()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* scores[bh][p] = vector . row p for p < n, -INFINITY behind. ITEMS: accesses that a row takes. */
template <typename T, int ITEMS, bool ALIGNED>
__global__ void __launch_bounds__(DOT_WARPS * 32, ITEMS > 4 ? 1 : 2) dot_kernel(DotArgs a)
{
    constexpr int SIZE = piece_size<T>, ROWS = dot_rows<ITEMS>, TOGETHER = ROWS * 32 / DOT_LANES;
    int bh = blockIdx.y, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, part = lane % DOT_LANES;
    if (a.active && !a.active[bh]) {
        wait_for_means(); /* what follows this kernel relies on them being over */
        return;
    }
    int64_t n = ((int64_t)a.prefix_len[bh / a.kv_heads] + a.page - 1) / a.page;
    n = n < a.capacity ? n : a.capacity;
    const T *base = (const T *)a.rows + (int64_t)bh * a.capacity * a.width;
    float *to = a.scores + (int64_t)bh * a.stride, v[ITEMS][SIZE];
    uint32_t keep[ITEMS][4];
    Piece x[ROWS][ITEMS];
    int64_t step = (int64_t)gridDim.x * DOT_WARPS * TOGETHER,
            p = ((int64_t)blockIdx.x * DOT_WARPS + warp) * TOGETHER;
    auto load_rows = [&]() {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            int64_t row = p + r * (32 / DOT_LANES) + lane / DOT_LANES;
#pragma unroll
            for (int i = 0; i < ITEMS; i++) {
                int at = (i * DOT_LANES + part) * SIZE;
                x[r][i] = load_piece<T, ALIGNED>(base + row * a.width + at, row < n ? a.width - at : 0);
            }
        }
    };
    load_rows();
    wait_for_means();
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
#pragma unroll
        for (int c = 0; c < SIZE; c++) {
            int at = (i * DOT_LANES + part) * SIZE + c;
            v[i][c] = at < a.width ? a.vectors[(int64_t)bh * a.width + at] : 0.0f;
        }
#pragma unroll
        for (int c = 0; c < 4; c++)
            keep[i][c] = sizeof(T) == 4 ? (v[i][c] == 0.0f ? 0u : 0xffffffffu)
                                        : (v[i][SIZE / 4 * c] == 0.0f ? 0u : 0xffffu) |
                                              (v[i][SIZE / 4 * c + SIZE / 4 - 1] == 0.0f ? 0u : 0xffff0000u);
    }
    while (p < a.entries) {
        float mine = 0.0f;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < ITEMS; i++)
                sum = dot_piece(x[r][i], v[i], keep[i], sum, (const T *)NULL);
#pragma unroll
            for (int offset = 1; offset < DOT_LANES; offset <<= 1)
                sum += __shfl_xor_sync(0xffffffffu, sum, offset);
            mine = part == r ? sum : mine;
        }
        int64_t row = p + part * (32 / DOT_LANES) + lane / DOT_LANES;
        if (part < ROWS && row < a.entries)
            to[row] = row < n ? mine : -INFINITY;
        p += step;
        load_rows();
    }
}

template <typename T, int ITEMS>
static cudaError_t launch_items(cudaStream_t stream, const mb_cuda_chip *chip, const DotArgs &a, int heads)
{
    unsigned blocks = blocks_for(a.entries, DOT_WARPS * dot_rows<ITEMS> * 32 / DOT_LANES);
    unsigned most =
        (unsigned)(132 * 2 / (heads < 1 ? 1 : heads)); /* two blocks a multiprocessor, several rounds each */
    dim3 grid(most < 1 ? 1 : blocks < most ? blocks : most, heads);
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = grid;
    config.blockDim = dim3(DOT_WARPS * 32);
    config.stream = stream;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = chip->capability >= 90 ? 1 : 0;
    return cudaLaunchKernelEx(
        &config, a.width % piece_size<T> == 0 ? dot_kernel<T, ITEMS, true> : dot_kernel<T, ITEMS, false>, a);
}

static cudaError_t launch_dot(cudaStream_t stream, const mb_cuda_chip *chip, mb_type type, const DotArgs &a,
                              int heads)
{
    if (a.width > 512)
        return cudaErrorInvalidValue;
    if (a.entries <= 0)
        return cudaSuccess;
    MB_WITH_TYPE(type, {
        int items = (a.width + DOT_LANES * piece_size<T> - 1) / (DOT_LANES * piece_size<T>);
        if (items == 1)
            return launch_items<T, 1>(stream, chip, a, heads);
        if (items == 2)
            return launch_items<T, 2>(stream, chip, a, heads);
        if (items <= 4)
            return launch_items<T, 4>(stream, chip, a, heads);
        if (items <= 8)
            return launch_items<T, 8>(stream, chip, a, heads);
        if constexpr (piece_size<T> == 4)
            return launch_items<T, 16>(stream, chip, a, heads);
    });
    return cudaErrorInvalidValue;
}

/* ---- all rows against tiles of pages: maximum and softmax ---- */

constexpr int TILE_PAGES = 32, TILE_THREADS = 256;

/* Bound of row i over page p of a tile whose bounds lie in shared memory as fp32, rows of 2*dim+1. */
template <typename T>
__device__ __forceinline__ float bound_of(const RowsArgs &a, int b, int h, int i, const float *bounds)
{
    int r = i / a.group, g = i % a.group;
    const T *q = (const T *)a.q + (((int64_t)b * a.rows + r) * a.query_heads + h * a.group + g) * a.dim;
    float sum = 0.0f;
    for (int c = 0; c < a.dim; c++) {
        float x = load(q + c);
        sum += x >= 0.0f ? x * bounds[c] : x * bounds[a.dim + c];
    }
    return sum;
}

/* Natural log of the sum over pages of exp(scale * bound), per row: one block a (head, row), pages in order. */
template <typename T>
__global__ void rows_lse_kernel(RowsArgs a, const T *bounds, int page, int page_capacity, float *row_lse)
{
    extern __shared__ float q[]; /* [dim] */
    __shared__ float shared[32];
    int bh = blockIdx.y, i = blockIdx.x, b = bh / a.kv_heads, h = bh % a.kv_heads, count = a.rows * a.group;
    int64_t n = ((int64_t)a.prefix_len[b] + page - 1) / page;
    n = n < page_capacity ? n : page_capacity;
    const T *from = (const T *)a.q + (((int64_t)b * a.rows + i / a.group) * a.query_heads + h * a.group + i % a.group) * a.dim;
    for (int c = threadIdx.x; c < a.dim; c += blockDim.x)
        q[c] = load(from + c);
    __syncthreads();
    float top = -INFINITY, sum = 0.0f;
    for (int64_t p = threadIdx.x; p < n; p += blockDim.x) {
        const T *m = bounds + ((int64_t)bh * page_capacity + p) * 2 * a.dim;
        float s = 0.0f;
        for (int c = 0; c < a.dim; c++)
            s += q[c] >= 0.0f ? q[c] * load(m + c) : q[c] * load(m + a.dim + c);
        s *= a.scale;
        float next = fmaxf(top, s);
        sum = sum * expf(top - next) + expf(s - next);
        top = next;
    }
    float most = warp_max(top);
    if ((threadIdx.x & 31) == 0)
        shared[threadIdx.x >> 5] = most;
    __syncthreads();
    most = warp_max((threadIdx.x & 31) < blockDim.x / 32 ? shared[threadIdx.x & 31] : -INFINITY);
    sum = block_sum(top == -INFINITY ? 0.0f : sum * expf(top - most), shared);
    if (threadIdx.x == 0)
        row_lse[(int64_t)bh * count + i] = most + logf(sum);
}

template <typename T>
__global__ void __launch_bounds__(TILE_THREADS)
    tile_kernel(RowsArgs a, const T *bounds, int page, int page_capacity, int softmax, const float *row_lse,
                float *scores, int64_t stride, int64_t entries)
{
    extern __shared__ float tile[]; /* [TILE_PAGES][2*dim+1], then [8][TILE_PAGES] */
    int bh = blockIdx.y, b = bh / a.kv_heads, h = bh % a.kv_heads, count = a.rows * a.group, wide = 2 * a.dim;
    int lane = threadIdx.x & 31, piece = threadIdx.x >> 5;
    if (a.active && !a.active[bh])
        return;
    int64_t first = (int64_t)blockIdx.x * TILE_PAGES, n = ((int64_t)a.prefix_len[b] + page - 1) / page;
    n = n < page_capacity ? n : page_capacity;
    for (int i = threadIdx.x; i < TILE_PAGES * wide; i += TILE_THREADS) {
        int64_t p = first + i / wide;
        tile[i / wide * (wide + 1) + i % wide] =
            p < n ? load(bounds + ((int64_t)bh * page_capacity + p) * wide + i % wide) : 0.0f;
    }
    float *partial = tile + TILE_PAGES * (wide + 1), total = 0.0f;
    __syncthreads();
    float best = softmax ? 0.0f : -INFINITY;
    for (int i = piece; i < count; i += TILE_THREADS / 32) {
        float w = weight_of(a, b, i / a.group);
        if (w == 0.0f)
            continue;
        float s = bound_of<T>(a, b, h, i, tile + lane * (wide + 1));
        if (softmax)
            best += w * expf(a.scale * s - row_lse[(int64_t)bh * count + i]);
        else
            best = fmaxf(best, s);
    }
    partial[piece * TILE_PAGES + lane] = best;
    for (int r = 0; r < a.rows; r++)
        total += weight_of(a, b, r);
    total *= (float)a.group;
    __syncthreads();
    if (piece == 0 && first + lane < entries) {
        float value = softmax ? 0.0f : -INFINITY;
        for (int i = 0; i < TILE_THREADS / 32; i++) {
            float x = partial[i * TILE_PAGES + lane];
            value = softmax ? value + x : fmaxf(value, x);
        }
        value = total > 0.0f ? (softmax ? value / total : value) : 0.0f;
        scores[(int64_t)bh * stride + first + lane] = first + lane < n ? value : -INFINITY;
    }
}

MB_CUDA_OPERATION(page_scores, mb_page_scores, MB_PART_SELECTION)
{
    cudaStream_t stream = device->stream;
    const mb_cuda_chip *chip = &device->chip;
    mb_type type = device->type;
    const mb_attention *attention = &args->attention;
    int32_t page = args->page, page_capacity = args->page_capacity;
    const void *bounds = args->bounds;
    mb_merge merge = args->merge;
    float *means = device->partials, *scores = args->scores;
    int64_t score_stride = args->stride;
    RowsArgs a = rows_of(attention);
    int heads = attention->rows.batch * attention->kv.kv_heads, count = a.rows * a.group;
    int64_t entries = ((int64_t)attention->rows.max_prefix + page - 1) / page;
    entries = entries < page_capacity ? entries : page_capacity;
    entries = entries < score_stride ? entries : score_stride;
    if (page < 1 || a.dim > 256 || (size_t)heads * (2 * a.dim > count ? 2 * a.dim : count) > MB_MEAN_FLOATS)
        return cudaErrorInvalidValue;
    if (entries <= 0)
        return cudaSuccess;
    if (merge == MB_MERGE_MEAN || merge == MB_MERGE_QUERY) {
        MB_WITH_TYPE(type, launch_means<T>(stream, a, heads, merge == MB_MERGE_MEAN, 0, means));
        DotArgs dot = {bounds, means, a.prefix_len, a.active, scores, score_stride, entries, a.kv_heads, page,
                       page_capacity, 2 * a.dim};
        return launch_dot(stream, chip, type, dot, heads);
    }
    int softmax = merge == MB_MERGE_SOFTMAX;
    size_t shared = ((size_t)TILE_PAGES * (2 * a.dim + 1) + TILE_THREADS) * sizeof(float);
    dim3 grid(blocks_for(entries, TILE_PAGES), heads);
    MB_WITH_TYPE(type, {
        if (softmax)
            rows_lse_kernel<T><<<dim3(count, heads), 256, a.dim * sizeof(float), stream>>>(a, (const T *)bounds, page,
                                                                                          page_capacity, means);
        cudaError_t status = cudaFuncSetAttribute(tile_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                  (int)shared);
        if (status != cudaSuccess)
            return status;
        tile_kernel<T><<<grid, TILE_THREADS, shared, stream>>>(a, (const T *)bounds, page, page_capacity, softmax, means,
                                                               scores, score_stride, entries);
    });
    return cudaGetLastError();
}

/* Channels that are not listed get coefficient 0 (and then 0 even against NaN). */
__global__ void keep_channels(float *means, int kv_heads, int dim, const int32_t *channels, int count)
{
    int bh = blockIdx.x, c = threadIdx.x;
    const int32_t *list = channels + (int64_t)(bh % kv_heads) * count;
    bool listed = false;
    for (int i = 0; i < count; i++)
        listed = listed || list[i] == c;
    if (!listed)
        means[(int64_t)bh * dim + c] = 0.0f;
}

MB_CUDA_OPERATION(key_scores, mb_key_scores, MB_PART_SELECTION)
{
    cudaStream_t stream = device->stream;
    const mb_cuda_chip *chip = &device->chip;
    mb_type type = device->type;
    const mb_attention *attention = &args->attention;
    float *means = device->partials, *scores = args->scores;
    int64_t score_stride = args->stride;
    RowsArgs a = rows_of(attention);
    int heads = attention->rows.batch * attention->kv.kv_heads;
    int64_t entries = (attention->rows.max_prefix + 63) / 64 * 64;
    entries = entries < score_stride ? entries : score_stride;
    if (a.dim > 256 || (size_t)heads * a.dim > MB_MEAN_FLOATS)
        return cudaErrorInvalidValue;
    if (entries <= 0)
        return cudaSuccess;
    MB_WITH_TYPE(type, launch_means<T>(stream, a, heads, 0, 1, means));
    if (args->channels)
        keep_channels<<<heads, a.dim, 0, stream>>>(means, a.kv_heads, a.dim, args->channels, args->channel_count);
    DotArgs dot = {attention->kv.k, means, a.prefix_len, a.active, scores, score_stride, entries, a.kv_heads, 1,
                   attention->kv.capacity, a.dim};
    return launch_dot(stream, chip, type, dot, heads);
}
