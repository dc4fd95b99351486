/*
 * experts.cu - the feed-forward layer of chosen experts: pairs (row, place in its list) sorted by expert, two
 * grouped products, the sum of a row's experts. Launches have a fixed size and read the routing from device
 * memory: a CUDA graph may hold them. No atomics: sums have one order.
 *
 * Floor: the weights of the experts in use, 3 * width * size elements each. 32 rows with 8 of 256 experts use 163
 * of them when all are equally likely; at LLaDA2.0 mini's 2048 x 512 in bf16 that is 1.03 GB a layer, 1.6 rows an
 * expert: bound by reading. So the weights are the wide side of mma.sync (16 features by 8 rows): a block streams
 * 128 weight rows through shared memory once for up to 32 rows of its expert.
 */
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/mma.cuh"

using namespace mb_cuda;

/* ---- pairs by expert ---- */

constexpr int LIST_THREADS = 256;

/* Block e: starts[e] = pairs of experts below e, order[starts[e] ..] = e's pairs in rising order. The last block
 * also writes starts[experts]. Pairs whose expert does not exist are in no list. */
__global__ void __launch_bounds__(LIST_THREADS)
    experts_lists(const int32_t *ids, int32_t pairs, int32_t experts, int32_t *starts, int32_t *order)
{
    __shared__ int counts[LIST_THREADS / 32];
    int e = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5, below = 0;
    for (int32_t p = threadIdx.x; p < pairs; p += LIST_THREADS)
        below += ids[p] >= 0 && ids[p] < e;
    for (int offset = 16; offset; offset >>= 1)
        below += __shfl_xor_sync(0xffffffffu, below, offset);
    if (lane == 0)
        counts[warp] = below;
    __syncthreads();
    int at = 0;
    for (int w = 0; w < LIST_THREADS / 32; w++)
        at += counts[w];
    if (threadIdx.x == 0)
        starts[e] = at;
    for (int32_t first = 0; first < pairs; first += LIST_THREADS) {
        int32_t p = first + threadIdx.x;
        bool mine = p < pairs && ids[p] == e;
        unsigned votes = __ballot_sync(0xffffffffu, mine);
        __syncthreads(); /* the counts of the round before have been read */
        if (lane == 0)
            counts[warp] = __popc(votes);
        __syncthreads();
        int before = 0, all = 0;
        for (int w = 0; w < LIST_THREADS / 32; w++) {
            before += w < warp ? counts[w] : 0;
            all += counts[w];
        }
        if (mine)
            order[at + before + __popc(votes & ((1u << lane) - 1u))] = p;
        at += all;
    }
    if (threadIdx.x == 0 && e == experts - 1)
        starts[experts] = at;
}

/* ---- products ---- */

/* What both products need, by value. FIRST: h * gate_up^T with SwiGLU, rows gathered from hidden, results by place
 * in the order. Else: inner * down^T, results by pair. */
struct ProductArgs {
    const int32_t *starts, *order;
    const void *rows, *weight;
    void *out;
    int32_t top_k, features, depth; /* features: of the result; depth: of the sum */
    mb_activation activation;
};

template <typename T>
__device__ __forceinline__ float gate_product(float gate, float up, mb_activation activation)
{
    return rounded<T>(activated(gate, activation)) * up;
}

constexpr int TILE_FEATURES = 128, TILE_ROWS = 32, TILE_DEPTH = 64, STAGES = 3, PRODUCT_THREADS = 128;
constexpr int WEIGHT_BYTES = TILE_FEATURES * TILE_DEPTH * 2, ROW_BYTES = TILE_ROWS * TILE_DEPTH * 2;
constexpr int STAGE_BYTES = WEIGHT_BYTES + ROW_BYTES, PRODUCT_SHARED = STAGES * STAGE_BYTES;
constexpr int OUT_PITCH = TILE_FEATURES + 8; /* elements between rows of the result in shared memory */
static_assert(TILE_ROWS * OUT_PITCH * 2 <= PRODUCT_SHARED, "the result takes the place of the stages");

/* One tile's loop over the depth: fills sums[half][row group][4]. Shared row r of the weight tile is row
 * `first + r` of the weight matrix, or for FIRST gate row `first + r` and, from r = 64, up row first + r - 64. */
template <typename T, bool FIRST>
__device__ __forceinline__ void multiply_tile(const ProductArgs &a, const T *weight, int first,
                                              int start, int row, int count, unsigned char *shared,
                                              float (&sums)[2][4][4])
{
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, chunk = threadIdx.x & 7, line = threadIdx.x >> 3;
    const int steps = (a.depth + TILE_DEPTH - 1) / TILE_DEPTH, half = TILE_FEATURES / 2;
    const uint32_t base = shared_address(shared);
    const T *rows = (const T *)a.rows, *source[2];
    for (int i = 0; i < 2; i++) { /* this thread's two rows of the row tile */
        int at = row + line + 16 * i;
        int64_t from = at >= count ? 0 : FIRST ? a.order[start + at] / a.top_k : start + at;
        source[i] = rows + from * a.depth;
    }
    auto fetch = [&](int step) {
        uint32_t stage = base + (step % STAGES) * STAGE_BYTES;
        int depth = step * TILE_DEPTH + chunk * 8;
        bool inside = depth < a.depth;
#pragma unroll
        for (int i = 0; i < TILE_FEATURES / 16; i++) {
            int r = line + 16 * i, feature = FIRST ? first + r % half : first + r;
            bool valid = inside && feature < a.features;
            int64_t weight_row = FIRST && r >= half ? (int64_t)a.features + feature : feature;
            copy_async16(stage + swizzled<TILE_DEPTH>(r, chunk),
                         valid ? weight + weight_row * a.depth + depth : weight, valid);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int r = line + 16 * i;
            bool valid = inside && row + r < count;
            copy_async16(stage + WEIGHT_BYTES + swizzled<TILE_DEPTH>(r, chunk), valid ? source[i] + depth : rows,
                         valid);
        }
    };
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps)
            fetch(s);
        copy_commit();
    }
    for (int step = 0; step < steps; step++) {
        copy_wait<STAGES - 2>();
        __syncthreads(); /* the stage has arrived, and everyone has left the one that is filled next */
        if (step + STAGES - 1 < steps)
            fetch(step + STAGES - 1);
        copy_commit();
        uint32_t stage = base + (step % STAGES) * STAGE_BYTES;
#pragma unroll
        for (int k = 0; k < TILE_DEPTH / 16; k++) {
            uint32_t w[2][4];
#pragma unroll
            for (int h = 0; h < 2; h++)
                load_matrix4(
                    w[h], stage + swizzled<TILE_DEPTH>(16 * warp + half * h + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                if (row + 8 * j >= count) /* the same for the whole block */
                    continue;
                uint32_t x[4];
                load_matrix4(
                    x, stage + WEIGHT_BYTES +
                           swizzled<TILE_DEPTH>(8 * j + 8 * (lane >> 4) + (lane & 7), 2 * k + (lane >> 3 & 1)));
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    multiply<T>(sums[h][j], w[h], x[0], x[1]);
                    multiply<T>(sums[h][j + 1], w[h], x[2], x[3]);
                }
            }
        }
    }
    copy_wait<0>();
    __syncthreads();
}

/* Block (x, e, z): a tile of features of expert e for its rows 32z .., every gridDim.z-th tile of them. T:
 * bf16 or f16; features and depth multiples of 8. */
template <typename T, bool FIRST> __global__ void __launch_bounds__(PRODUCT_THREADS) experts_mma(ProductArgs a)
{
    extern __shared__ __align__(128) unsigned char shared[];
    const int e = blockIdx.y, start = a.starts[e], count = a.starts[e + 1] - start;
    const int width = FIRST ? TILE_FEATURES / 2 : TILE_FEATURES, first = blockIdx.x * width;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const T *weight = (const T *)a.weight + (int64_t)e * (FIRST ? 2 : 1) * a.features * a.depth;
    T *tile = (T *)shared;
    for (int row = blockIdx.z * TILE_ROWS; row < count; row += gridDim.z * TILE_ROWS) {
        float sums[2][4][4] = {};
        multiply_tile<T, FIRST>(a, weight, first, start, row, count, shared, sums);
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                int feature = 16 * warp + (lane >> 2) + 8 * (c >> 1), r = 8 * j + 2 * (lane & 3) + (c & 1);
                if (FIRST) {
                    float gate = rounded<T>(sums[0][j][c]), up = rounded<T>(sums[1][j][c]);
                    store(tile + r * OUT_PITCH + feature, gate_product<T>(gate, up, a.activation));
                } else {
                    store(tile + r * OUT_PITCH + feature, sums[0][j][c]);
                    store(tile + r * OUT_PITCH + feature + TILE_FEATURES / 2, sums[1][j][c]);
                }
            }
        __syncthreads();
        for (int i = threadIdx.x; i < TILE_ROWS * width / 8; i += PRODUCT_THREADS) {
            int r = i / (width / 8), chunk = i % (width / 8) * 8;
            if (row + r >= count || first + chunk >= a.features)
                continue;
            int64_t to = FIRST ? start + row + r : a.order[start + row + r];
            *(uint4 *)((T *)a.out + to * a.features + first + chunk) =
                *(const uint4 *)(tile + r * OUT_PITCH + chunk);
        }
        __syncthreads(); /* the next tile's stages lie where the result was read */
    }
}

constexpr int ANY_WARPS = 8, ANY_ROWS = 4;

/* Any type and width: a warp computes one feature for four rows at a time, lanes along the depth. */
template <typename T, bool FIRST> __global__ void __launch_bounds__(ANY_WARPS * 32) experts_any(ProductArgs a)
{
    const int e = blockIdx.y, start = a.starts[e], count = a.starts[e + 1] - start, lane = threadIdx.x & 31;
    const int feature = blockIdx.x * ANY_WARPS + (threadIdx.x >> 5);
    if (feature >= a.features)
        return;
    const T *weight = (const T *)a.weight + ((int64_t)e * (FIRST ? 2 : 1) * a.features + feature) * a.depth;
    const T *up = FIRST ? weight + (int64_t)a.features * a.depth : weight;
    for (int row = blockIdx.z * ANY_ROWS; row < count; row += gridDim.z * ANY_ROWS) {
        float sum[2][ANY_ROWS] = {};
        const T *source[ANY_ROWS];
        for (int r = 0; r < ANY_ROWS; r++) { /* rows behind the end repeat the last one */
            int at = start + (row + r < count ? row + r : count - 1);
            source[r] = (const T *)a.rows + (int64_t)(FIRST ? a.order[at] / a.top_k : at) * a.depth;
        }
        for (int k = lane; k < a.depth; k += 32) {
            float w = load(weight + k), u = FIRST ? load(up + k) : 0.0f;
#pragma unroll
            for (int r = 0; r < ANY_ROWS; r++) {
                float x = load(source[r] + k);
                sum[0][r] = fmaf(x, w, sum[0][r]);
                if (FIRST)
                    sum[1][r] = fmaf(x, u, sum[1][r]);
            }
        }
#pragma unroll
        for (int r = 0; r < ANY_ROWS; r++) {
            float y = rounded<T>(warp_sum(sum[0][r]));
            if (FIRST)
                y = gate_product<T>(y, rounded<T>(warp_sum(sum[1][r])), a.activation);
            if (lane == 0 && row + r < count)
                store((T *)a.out + (int64_t)(FIRST ? start + row + r : a.order[start + row + r]) * a.features +
                          feature,
                      y);
        }
    }
}

template <typename T, bool FIRST>
static cudaError_t launch_mma(cudaStream_t stream, const ProductArgs &a, dim3 grid)
{
    /* A setting of the kernel, not of the stream: allowed while a graph is captured. */
    cudaError_t status =
        cudaFuncSetAttribute(experts_mma<T, FIRST>, cudaFuncAttributeMaxDynamicSharedMemorySize, PRODUCT_SHARED);
    if (status == cudaSuccess)
        experts_mma<T, FIRST><<<grid, PRODUCT_THREADS, PRODUCT_SHARED, stream>>>(a);
    return status;
}

template <bool FIRST>
static cudaError_t launch_product(cudaStream_t stream, mb_type type, const mb_experts *args, const ProductArgs &a)
{
    int64_t tiles = (args->n + TILE_ROWS - 1) / TILE_ROWS;
    unsigned z = (unsigned)(tiles < 1 ? 1 : tiles > 8 ? 8 : tiles);
    if (type != MB_F32 && a.features % 8 == 0 && a.depth % 8 == 0) {
        dim3 grid(blocks_for(a.features, FIRST ? TILE_FEATURES / 2 : TILE_FEATURES), (unsigned)args->experts, z);
        cudaError_t status = type == MB_F16 ? launch_mma<__half, FIRST>(stream, a, grid)
                                            : launch_mma<__nv_bfloat16, FIRST>(stream, a, grid);
        if (status != cudaSuccess)
            return status;
    } else {
        dim3 grid(blocks_for(a.features, ANY_WARPS), (unsigned)args->experts, z);
        MB_WITH_TYPE(type, experts_any<T, FIRST><<<grid, ANY_WARPS * 32, 0, stream>>>(a));
    }
    return cudaGetLastError();
}

/* ---- the sum ---- */

/* Block x: one row. out = y or T(y + add), kernels.h (mb_combine). An expert that does not exist gives NaN. */
template <typename T>
__global__ void experts_combine(const int32_t *ids, const float *weights, const T *outputs, const T *add,
                                int64_t width, int32_t experts, int32_t top_k, int in_steps, T *out)
{
    __shared__ int places[MB_TOP_EXPERTS_MAX];
    __shared__ float factors[MB_TOP_EXPERTS_MAX];
    int64_t row = blockIdx.x;
    if (threadIdx.x < top_k) {
        int mine = ids[row * top_k + threadIdx.x], place = threadIdx.x;
        if (in_steps) { /* place in the order of rising experts; equal ones keep their order */
            place = 0;
            for (int k = 0; k < top_k; k++) {
                int other = ids[row * top_k + k];
                place += other < mine || (other == mine && k < (int)threadIdx.x);
            }
        }
        places[place] = threadIdx.x;
        factors[place] = mine >= 0 && mine < experts ? weights[row * top_k + threadIdx.x] : NAN;
    }
    __syncthreads();
    for (int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x; i < width;
         i += (int64_t)gridDim.y * blockDim.x) {
        float y = 0.0f;
        for (int k = 0; k < top_k; k++) {
            float x = load(outputs + (row * top_k + places[k]) * width + i);
            y = in_steps ? rounded<T>(y + rounded<T>(factors[k] * x)) : fmaf(factors[k], x, y);
        }
        if (add)
            y = rounded<T>(y) + load(add + row * width + i);
        store(out + row * width + i, y);
    }
}

/* ---- launchers ---- */

struct Scratch {
    int32_t *starts, *order;
    char *inner, *outputs;
};

static Scratch scratch_of(mb_type type, const mb_experts *args)
{
    Scratch s;
    s.starts = (int32_t *)args->scratch;
    s.order = s.starts + args->experts + 1;
    s.inner = (char *)args->scratch + mb_experts_lists_bytes(args->n, args->experts, args->top_k);
    s.outputs = s.inner + mb_experts_inner_bytes(args->n, args->top_k, args->size, type);
    return s;
}

extern "C" cudaError_t mb_launch_experts_lists(cudaStream_t stream, const mb_experts *args)
{
    if (args->n < 0 || args->width < 1 || args->width > INT32_MAX / 2 || args->size < 1 || args->experts < 1 ||
        args->experts > MB_EXPERTS_MAX || args->top_k < 1 || args->top_k > MB_TOP_EXPERTS_MAX ||
        args->n * args->top_k > INT32_MAX - LIST_THREADS || args->out == args->hidden)
        return cudaErrorInvalidValue;
    if (args->n == 0)
        return cudaSuccess;
    Scratch s = scratch_of(MB_F32, args); /* the lists lie first, whatever the type */
    experts_lists<<<(unsigned)args->experts, LIST_THREADS, 0, stream>>>(
        args->ids, (int32_t)(args->n * args->top_k), args->experts, s.starts, s.order);
    return cudaGetLastError();
}

extern "C" cudaError_t mb_launch_experts_products(cudaStream_t stream, mb_type type, const mb_experts *args)
{
    if (args->n == 0)
        return cudaSuccess;
    Scratch s = scratch_of(type, args);
    ProductArgs first = {s.starts, s.order,     args->hidden, args->gate_up,
                         s.inner,  args->top_k, args->size,   (int32_t)args->width, args->activation};
    ProductArgs second = {s.starts,  s.order, s.inner, args->down, s.outputs, args->top_k, (int32_t)args->width,
                          args->size, args->activation};
    cudaError_t status = launch_product<true>(stream, type, args, first);
    return status == cudaSuccess ? launch_product<false>(stream, type, args, second) : status;
}

extern "C" cudaError_t mb_launch_experts_combine(cudaStream_t stream, mb_type type, const mb_experts *args)
{
    if (args->n == 0)
        return cudaSuccess;
    Scratch s = scratch_of(type, args);
    /* Few rows share the chip by columns. */
    dim3 grid((unsigned)args->n, args->n >= 256 ? 1 : blocks_for(args->width, 256));
    MB_WITH_TYPE(type, experts_combine<T><<<grid, 256, 0, stream>>>(
                           args->ids, args->weights, (const T *)s.outputs, (const T *)args->add, args->width,
                           args->experts, args->top_k, args->combine == MB_COMBINE_STEPS, (T *)args->out));
    return cudaGetLastError();
}
