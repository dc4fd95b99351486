/*
 * pages.cu - scores of keys and pages that need no softmax over keys: page bounds, the upper bound of q.k over a
 * page (methods.md 2.3, 2.7), mean logits over chosen channels.
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

/* One thread a channel; blockIdx.x runs over pages, blockIdx.y over (sequence, head). */
template <typename T> __global__ void bounds_kernel(BoundsArgs a)
{
    int bh = blockIdx.y, c = threadIdx.x, prefix = a.prefix_len[bh / a.kv_heads];
    int end = a.whole ? prefix : prefix + a.block_keys;
    end = end < a.capacity ? end : a.capacity;
    int64_t p = (a.whole ? 0 : prefix / a.page) + (int64_t)blockIdx.x;
    int64_t last = (p + 1) * a.page < end ? (p + 1) * a.page : end;
    if (p * a.page >= end || p >= a.page_capacity || c >= a.dim)
        return;
    const T *k = (const T *)a.k + (int64_t)bh * a.capacity * a.dim;
    float most = -INFINITY, least = INFINITY;
#pragma unroll 8
    for (int64_t j = p * a.page; j < last; j++) {
        float x = load(k + j * a.dim + c);
        most = x > most ? x : most;
        least = x < least ? x : least;
    }
    T *to = (T *)a.bounds + ((int64_t)bh * a.page_capacity + p) * 2 * a.dim;
    store(to + c, most);
    store(to + a.dim + c, least);
}

extern "C" cudaError_t mb_launch_page_bounds(cudaStream_t stream, mb_type type, const mb_rows *rows, const mb_kv *kv,
                                             int32_t page, int32_t page_capacity, int whole, void *bounds)
{
    BoundsArgs a = {kv->k, bounds, rows->prefix_len, kv->kv_heads, kv->capacity, kv->head_dim, rows->block_keys, page,
                    page_capacity, whole};
    if (page < 1 || kv->head_dim > 256)
        return cudaErrorInvalidValue;
    int64_t pages = whole ? ((int64_t)rows->max_prefix + page - 1) / page : rows->block_keys / page + 2;
    if (pages > 0)
        MB_WITH_TYPE(type, bounds_kernel<T><<<dim3((unsigned)pages, rows->batch * kv->kv_heads),
                                              (kv->head_dim + 31) / 32 * 32, 0, stream>>>(a));
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

/* means[bh][2*dim] = weighted means of q+ and of -q-; split 0: [dim] mean of q itself, then split by sign.
 * Block: dim x 4 threads; the four partial sums are added in order. plain: only the mean query, [dim]. */
template <typename T> __global__ void means_kernel(RowsArgs a, int split, int plain, float *means)
{
    extern __shared__ float part[]; /* [4][2][dim] */
    int bh = blockIdx.x, b = bh / a.kv_heads, h = bh % a.kv_heads, c = threadIdx.x, piece = threadIdx.y;
    int count = a.rows * a.group;
    float plus = 0.0f, minus = 0.0f, total = 0.0f;
    for (int r = 0; r < a.rows; r++)
        total += weight_of(a, b, r);
    total *= (float)a.group;
#pragma unroll 4
    for (int i = piece; i < count; i += 4) {
        int r = i / a.group, g = i % a.group;
        float w = weight_of(a, b, r);
        float x = load((const T *)a.q + (((int64_t)b * a.rows + r) * a.query_heads + h * a.group + g) * a.dim + c);
        if (w != 0.0f) {
            plus += w * (split ? fmaxf(x, 0.0f) : x);
            minus += w * fminf(x, 0.0f);
        }
    }
    part[(piece * 2 + 0) * a.dim + c] = plus;
    part[(piece * 2 + 1) * a.dim + c] = minus;
    __syncthreads();
    if (piece)
        return;
    plus = minus = 0.0f;
    for (int i = 0; i < 4; i++) {
        plus += part[(i * 2 + 0) * a.dim + c];
        minus += part[(i * 2 + 1) * a.dim + c];
    }
    plus = total > 0.0f ? plus / total : 0.0f;
    minus = total > 0.0f ? minus / total : 0.0f;
    if (plain) {
        means[(int64_t)bh * a.dim + c] = plus;
        return;
    }
    float *to = means + (int64_t)bh * 2 * a.dim;
    to[c] = split ? plus : fmaxf(plus, 0.0f);
    to[a.dim + c] = split ? minus : fminf(plus, 0.0f);
}

template <typename T> static void launch_means(cudaStream_t stream, const RowsArgs &a, int heads, int split, int plain,
                                               float *means)
{
    means_kernel<T><<<heads, dim3(a.dim, 4), 8 * a.dim * sizeof(float), stream>>>(a, split, plain, means);
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

constexpr int DOT_WARPS = 8, DOT_ROWS = 8; /* rows a warp takes at once: independent loads in flight */

/* scores[bh][p] = vector . row p for p < n, -INFINITY behind. VEC elements a lane and access. */
template <typename T, int ITEMS> __global__ void __launch_bounds__(DOT_WARPS * 32) dot_kernel(DotArgs a)
{
    int bh = blockIdx.y, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    if (a.active && !a.active[bh])
        return;
    int64_t n = ((int64_t)a.prefix_len[bh / a.kv_heads] + a.page - 1) / a.page;
    n = n < a.capacity ? n : a.capacity;
    float v[ITEMS][4];
#pragma unroll
    for (int i = 0; i < ITEMS; i++)
        for (int c = 0; c < 4; c++) {
            int at = (i * 32 + lane) * 4 + c;
            v[i][c] = at < a.width ? a.vectors[(int64_t)bh * a.width + at] : 0.0f;
        }
    const T *base = (const T *)a.rows + (int64_t)bh * a.capacity * a.width;
    float *to = a.scores + (int64_t)bh * a.stride;
    int64_t step = (int64_t)gridDim.x * DOT_WARPS * DOT_ROWS;
    for (int64_t p = ((int64_t)blockIdx.x * DOT_WARPS + warp) * DOT_ROWS; p < a.entries; p += step) {
        float x[DOT_ROWS][ITEMS][4];
#pragma unroll
        for (int r = 0; r < DOT_ROWS; r++)
#pragma unroll
            for (int i = 0; i < ITEMS; i++) {
                int at = (i * 32 + lane) * 4;
                if (p + r < n && at < a.width)
                    load4(base + (p + r) * a.width + at, x[r][i]);
                else
                    x[r][i][0] = x[r][i][1] = x[r][i][2] = x[r][i][3] = 0.0f;
            }
        float mine = 0.0f;
#pragma unroll
        for (int r = 0; r < DOT_ROWS; r++) {
            float sum = 0.0f;
            for (int i = 0; i < ITEMS; i++)
                for (int c = 0; c < 4; c++)
                    sum += v[i][c] == 0.0f ? 0.0f : v[i][c] * x[r][i][c];
            sum = warp_sum(sum);
            mine = lane == r ? sum : mine;
        }
        if (lane < DOT_ROWS && p + lane < a.entries)
            to[p + lane] = p + lane < n ? mine : -INFINITY;
    }
}

static cudaError_t launch_dot(cudaStream_t stream, mb_type type, const DotArgs &a, int heads)
{
    if (a.width % 4 || a.width > 512)
        return cudaErrorInvalidValue;
    if (a.entries <= 0)
        return cudaSuccess;
    unsigned blocks = blocks_for(a.entries, DOT_WARPS * DOT_ROWS);
    unsigned most = (unsigned)(132 * 16 / (heads < 1 ? 1 : heads) + 1);
    dim3 grid(blocks < most ? blocks : most, heads);
    int items = (a.width + 127) / 128;
    MB_WITH_TYPE(type, if (items == 1) dot_kernel<T, 1><<<grid, DOT_WARPS * 32, 0, stream>>>(a);
                 else if (items == 2) dot_kernel<T, 2><<<grid, DOT_WARPS * 32, 0, stream>>>(a);
                 else dot_kernel<T, 4><<<grid, DOT_WARPS * 32, 0, stream>>>(a));
    return cudaGetLastError();
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

extern "C" cudaError_t mb_launch_page_scores(cudaStream_t stream, mb_type type, const mb_attention *args, int32_t page,
                                             int32_t page_capacity, const void *bounds, mb_merge merge, float *means,
                                             float *scores, int64_t score_stride)
{
    RowsArgs a = rows_of(args);
    int heads = args->rows.batch * args->kv.kv_heads, count = a.rows * a.group;
    int64_t entries = ((int64_t)args->rows.max_prefix + page - 1) / page;
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
        return launch_dot(stream, type, dot, heads);
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

extern "C" cudaError_t mb_launch_key_scores(cudaStream_t stream, mb_type type, const mb_attention *args,
                                            const int32_t *channels, int32_t channel_count, float *means, float *scores,
                                            int64_t score_stride)
{
    RowsArgs a = rows_of(args);
    int heads = args->rows.batch * args->kv.kv_heads;
    int64_t entries = (args->rows.max_prefix + 63) / 64 * 64;
    entries = entries < score_stride ? entries : score_stride;
    if (a.dim > 256 || (size_t)heads * a.dim > MB_MEAN_FLOATS)
        return cudaErrorInvalidValue;
    if (entries <= 0)
        return cudaSuccess;
    MB_WITH_TYPE(type, launch_means<T>(stream, a, heads, 0, 1, means));
    if (channels)
        keep_channels<<<heads, a.dim, 0, stream>>>(means, a.kv_heads, a.dim, channels, channel_count);
    DotArgs dot = {args->kv.k, means, a.prefix_len, a.active, scores, score_stride, entries, a.kv_heads, 1,
                   args->kv.capacity, a.dim};
    return launch_dot(stream, type, dot, heads);
}
