/*
 * estimate.cu - choosing keys by less than their whole attention (kernels/estimate.h). Same definitions as the CPU's
 * estimate.c. Plain kernels: what they read is small next to the keys, but for tile_gaps, which computes the logits
 * of all rows without tensor cores.
 */
#include "kernels/cuda/common.cuh"

#include <cfloat>
#include <climits>

using namespace mb_cuda;

namespace {

constexpr int THREADS = 256, WARPS = THREADS / 32, MOST_DIM = 256;

/* ---- few channels, few bits: a warp a vector ---- */

__device__ float warp_least(float x)
{
    for (int step = 16; step > 0; step /= 2)
        x = fminf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

/* Writes the vector `from` [dim] to `to`: see the CPU's pick(). `listed`: channels[count], or NULL = all count. */
template <typename T>
__device__ void pick(const int32_t *channels, int count, int bits, int dim, const T *from, T *to)
{
    int lane = threadIdx.x % 32;
    float least = INFINITY, most = INFINITY; /* of x and of -x */
    for (int i = lane; i < count; i += 32) {
        float x = load(from + (channels ? channels[i] : i));
        least = fminf(least, x);
        most = fminf(most, -x);
    }
    least = warp_least(least);
    most = -warp_least(most);
    float levels = (float)((1 << bits) - 1);
    float step = bits > 0 && most > least ? __fdiv_rn(levels, most - least) : 1.0f;
    for (int c = lane; c < dim; c += 32)
        store(to + c, 0.0f);
    __syncwarp();
    for (int i = lane; i < count; i += 32) {
        int c = channels ? channels[i] : i;
        float x = load(from + c), level = fminf(rintf(__fmul_rn(x - least, step)), levels);
        store(to + c, bits > 0 ? __fadd_rn(__fdiv_rn(level, step), least) : x);
    }
}

/* A block a (sequence, KV head): its channels, then its vectors. */
template <typename T> __global__ void query_kernel(mb_query_pick a)
{
    __shared__ double sums[MOST_DIM];
    __shared__ int32_t own[MOST_DIM];
    __shared__ int chosen[MOST_DIM];
    int dim = a.shape.head_dim, heads = a.shape.query_heads, kv_heads = a.shape.kv_heads, group = heads / kv_heads;
    int b = blockIdx.x / kv_heads, h = blockIdx.x % kv_heads, c = threadIdx.x, vectors = a.shape.rows * group;
    const T *q = (const T *)a.q + (int64_t)b * a.shape.rows * heads * dim;
    T *out = (T *)a.out + (int64_t)b * a.shape.rows * heads * dim;
    if (c < dim) {
        double sum = 0.0;
        for (int i = 0; i < vectors && !a.channels; i++)
            sum += (double)fabsf(load(q + ((int64_t)(i / group) * heads + h * group + i % group) * dim + c));
        sums[c] = sum;
    }
    __syncthreads();
    if (c < dim) {
        int ahead = 0;
        for (int d = 0; d < dim; d++)
            ahead += sums[d] > sums[c] || (sums[d] == sums[c] && d < c);
        chosen[c] = ahead < a.count;
    }
    __syncthreads();
    if (c < dim && chosen[c]) {
        int place = 0;
        for (int d = 0; d < c; d++)
            place += chosen[d];
        if (place < a.count)
            own[place] = c;
    }
    __syncthreads();
    const int32_t *channels = a.channels ? a.channels + (int64_t)h * a.count : own;
    for (int i = threadIdx.x / 32; i < vectors; i += WARPS) {
        int64_t at = ((int64_t)(i / group) * heads + h * group + i % group) * dim;
        pick(channels, a.count, a.bits, dim, q + at, out + at);
    }
}

/* A warp a key. */
template <typename T> __global__ void key_kernel(mb_key_pick a)
{
    int64_t bh = blockIdx.y, prefix = a.rows.prefix_len[bh / a.kv.kv_heads], dim = a.kv.head_dim;
    int64_t j = (a.whole ? 0 : prefix) + (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    int64_t last = a.whole ? prefix : prefix + a.rows.block_keys;
    if (j >= last || j >= a.kv.capacity)
        return;
    const int32_t *channels = a.channels ? a.channels + bh % a.kv.kv_heads * a.count : NULL;
    int64_t at = (bh * a.kv.capacity + j) * dim;
    pick(channels, channels ? a.count : (int)dim, a.bits, (int)dim, (const T *)a.kv.k + at, (T *)a.out + at);
}

/* ---- tiles ---- */

/* A block a (tile, KV head): the tile's keys in shared memory, a warp a query row. */
template <typename T> __global__ void tile_kernel(mb_tile_gaps a, int tiles)
{
    extern __shared__ float keys[]; /* [keys of the tile][dim + 1] */
    const mb_kv kv = a.attention.kv;
    int64_t bh = blockIdx.y, t = blockIdx.x, dim = kv.head_dim, prefix = a.attention.rows.prefix_len[bh / kv.kv_heads];
    int lane = threadIdx.x % 32, group = a.attention.query_heads / kv.kv_heads;
    int64_t left = prefix - t * a.page, n = left < a.page ? left : a.page;
    if (n <= 0)
        return;
    const T *k = (const T *)kv.k + (bh * kv.capacity + t * a.page) * dim;
    for (int64_t i = threadIdx.x; i < n * dim; i += blockDim.x)
        keys[i / dim * (dim + 1) + i % dim] = load(k + i);
    __syncthreads();
    float scale = 1.0f / sqrtf((float)dim);
    for (int i = threadIdx.x / 32; i < a.attention.rows.rows * group; i += WARPS) {
        int64_t at = (bh / kv.kv_heads * a.attention.rows.rows + i / group) * a.attention.query_heads +
                     bh % kv.kv_heads * group + i % group;
        const T *q = (const T *)a.attention.q + at * dim;
        float least = INFINITY; /* of the negated logits */
        for (int64_t j = lane; j < n; j += 32) {
            float sum = 0.0f;
            for (int c = 0; c < dim; c++)
                sum += load(q + c) * keys[j * (dim + 1) + c];
            least = fminf(least, -scale * sum);
        }
        least = warp_least(least);
        if (lane == 0)
            a.scratch[at * tiles + t] = -least;
    }
}

/* A thread a (tile, KV head): the rows' running maxima are read again, all of them in cache. */
__global__ void gap_kernel(mb_tile_gaps a, int tiles)
{
    int64_t bh = blockIdx.x, prefix = a.attention.rows.prefix_len[bh / a.attention.kv.kv_heads];
    int64_t used = (prefix + a.page - 1) / a.page, b = bh / a.attention.kv.kv_heads, h = bh % a.attention.kv.kv_heads;
    int group = a.attention.query_heads / a.attention.kv.kv_heads, count = a.attention.rows.rows * group;
    float *gaps = a.gaps + bh * a.stride;
    /* Each row's maxima become running maxima's gaps in place, then the rows are folded. */
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        int64_t at = (b * a.attention.rows.rows + i / group) * a.attention.query_heads + h * group + i % group;
        float running = -INFINITY, *row = a.scratch + at * tiles;
        for (int64_t t = 0; t < used; t++) {
            running = fmaxf(running, row[t]);
            row[t] -= running;
        }
    }
    __syncthreads();
    for (int64_t t = threadIdx.x; t < tiles; t += blockDim.x) {
        float gap = -INFINITY;
        for (int i = 0; i < count && t < used; i++) {
            int64_t at = (b * a.attention.rows.rows + i / group) * a.attention.query_heads + h * group + i % group;
            gap = fmaxf(gap, a.scratch[at * tiles + t]);
        }
        gaps[t] = gap < a.least ? -INFINITY : gap;
    }
}

/* ---- scores ---- */

__global__ void spread_kernel(mb_score_spread a)
{
    int64_t bh = blockIdx.y, j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j < a.scores.prefix_len[bh / a.scores.kv_heads])
        a.out[bh * a.scores.stride + j] = a.scores.values[bh * a.scores.stride + j / a.scores.page];
}

/* The row of a sequence's first head holds places as integers until they are final. */
__global__ void place_start_kernel(mb_score_interleave a)
{
    int64_t b = blockIdx.y, j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j < a.scores.prefix_len[b])
        ((int *)(a.out + b * a.scores.kv_heads * a.scores.stride))[j] = INT_MAX;
}

/* A thread an entry of a head's set; the smallest place wins, in whatever order the threads come. */
__global__ void place_kernel(mb_score_interleave a)
{
    int64_t bh = blockIdx.y, b = bh / a.scores.kv_heads;
    int i = blockIdx.x * blockDim.x + threadIdx.x, count = a.best.counts[bh], rank = 0;
    if (i >= count)
        return;
    const int32_t *ids = a.best.ids + bh * a.best.capacity;
    const float *score = a.scores.values + bh * a.scores.stride;
    float own = score[ids[i]];
    for (int o = 0; o < count; o++) {
        float other = score[ids[o]];
        rank += other > own || (other == own && o < i);
    }
    int *out = (int *)(a.out + b * a.scores.kv_heads * a.scores.stride);
    atomicMin(out + ids[i], rank * a.scores.kv_heads + (int)(bh % a.scores.kv_heads));
}

__global__ void place_end_kernel(mb_score_interleave a)
{
    int64_t b = blockIdx.y, j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= a.scores.prefix_len[b])
        return;
    float *first = a.out + b * a.scores.kv_heads * a.scores.stride;
    int place = ((const int *)first)[j];
    float value = place == INT_MAX ? -INFINITY : -(float)place;
    for (int h = 0; h < a.scores.kv_heads; h++)
        first[h * a.scores.stride + j] = value;
}

bool can_pick(int count, int bits, int dim)
{
    return dim <= MOST_DIM && count >= 1 && count <= dim && bits >= 0 && bits <= 8;
}

} // namespace

MB_CUDA_OPERATION(query_pick, mb_query_pick, MB_PART_SELECTION)
{
    const mb_row_shape *s = &args->shape;
    if (!can_pick(args->count, args->bits, s->head_dim) || args->out == args->q)
        return cudaErrorInvalidValue;
    MB_WITH_TYPE(device->type, query_kernel<T><<<s->batch * s->kv_heads, THREADS, 0, device->stream>>>(*args));
    return cudaGetLastError();
}

MB_CUDA_OPERATION(key_pick, mb_key_pick, MB_PART_SELECTION)
{
    const mb_kv *kv = &args->kv;
    if (!can_pick(args->channels ? args->count : kv->head_dim, args->bits, kv->head_dim) || args->out == kv->k)
        return cudaErrorInvalidValue;
    int64_t keys = args->whole ? args->rows.max_prefix : args->rows.block_keys;
    dim3 grid(blocks_for(keys, WARPS), args->rows.batch * kv->kv_heads);
    if (keys > 0)
        MB_WITH_TYPE(device->type, key_kernel<T><<<grid, THREADS, 0, device->stream>>>(*args));
    return cudaGetLastError();
}

template <typename T> static cudaError_t launch_tiles(mb_device *device, const mb_tile_gaps *args, int tiles)
{
    const mb_kv *kv = &args->attention.kv;
    int heads = args->attention.rows.batch * kv->kv_heads;
    size_t bytes = (size_t)args->page * (size_t)(kv->head_dim + 1) * sizeof(float);
    cudaError_t rc =
        cudaFuncSetAttribute(tile_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (rc == cudaSuccess)
        tile_kernel<T><<<dim3(tiles, heads), THREADS, bytes, device->stream>>>(*args, tiles);
    return rc;
}

MB_CUDA_OPERATION(tile_gaps, mb_tile_gaps, MB_PART_SELECTION)
{
    const mb_kv *kv = &args->attention.kv;
    if (args->page < 1 || kv->head_dim > MOST_DIM)
        return cudaErrorInvalidValue;
    int tiles = (int)(((int64_t)args->attention.rows.max_prefix + args->page - 1) / args->page);
    cudaError_t rc = cudaSuccess;
    if (tiles == 0)
        return rc;
    MB_WITH_TYPE(device->type, rc = launch_tiles<T>(device, args, tiles));
    if (rc != cudaSuccess)
        return rc;
    gap_kernel<<<args->attention.rows.batch * kv->kv_heads, THREADS, 0, device->stream>>>(*args, tiles);
    return cudaGetLastError();
}

MB_CUDA_OPERATION(score_spread, mb_score_spread, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    if (s->page < 1 || args->out == s->values)
        return cudaErrorInvalidValue;
    dim3 grid(blocks_for(s->max_prefix, THREADS), s->batch * s->kv_heads);
    if (s->max_prefix > 0)
        spread_kernel<<<grid, THREADS, 0, device->stream>>>(*args);
    return cudaGetLastError();
}

MB_CUDA_OPERATION(score_interleave, mb_score_interleave, MB_PART_SELECTION)
{
    const mb_scores *s = &args->scores;
    if (args->best.granularity != 1 || args->out == s->values)
        return cudaErrorInvalidValue;
    dim3 tokens(blocks_for(s->max_prefix, THREADS), s->batch);
    dim3 entries(blocks_for(args->best.capacity, THREADS), s->batch * s->kv_heads);
    if (s->max_prefix == 0)
        return cudaSuccess;
    place_start_kernel<<<tokens, THREADS, 0, device->stream>>>(*args);
    place_kernel<<<entries, THREADS, 0, device->stream>>>(*args);
    place_end_kernel<<<tokens, THREADS, 0, device->stream>>>(*args);
    return cudaGetLastError();
}
