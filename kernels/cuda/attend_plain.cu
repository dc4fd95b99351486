/*
 * attend_plain.cu - attention for every shape that the matrix kernels do not serve: fp32 storage, any head_dim
 * up to 512. One block per query row; chunks of 128 keys, a key a thread for the logits, a channel a thread for
 * the output. fp32 throughout, no matrix units: this is the path that parity with the CPU is checked on.
 */
#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/key_list.cuh"

namespace mb_cuda {
namespace {

constexpr int THREADS = 128;
constexpr int MAX_DIM = 512;

/* Maximum or sum over the block, the same bits in every thread. */
template <bool MAX> __device__ float reduce_block(float x, float *shared)
{
    for (int step = 16; step > 0; step /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, x, step);
        x = MAX ? fmaxf(x, other) : x + other;
    }
    __syncthreads();
    if ((threadIdx.x & 31) == 0)
        shared[threadIdx.x >> 5] = x;
    __syncthreads();
    x = shared[0];
    for (int i = 1; i < THREADS / 32; i++)
        x = MAX ? fmaxf(x, shared[i]) : x + shared[i];
    return x;
}

template <typename T>
__device__ __forceinline__ float dot(const float *q, const T *k, int head_dim)
{
    float s[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    int c = 0;
    for (; c + 4 <= head_dim; c += 4)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[i] += q[c + i] * load(k + c + i);
    for (; c < head_dim; c++)
        s[0] += q[c] * load(k + c);
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* Grid: (packed rows, units). */
template <typename T, Source SOURCE>
__global__ void __launch_bounds__(THREADS) attend_row(const __grid_constant__ Problem p)
{
    __shared__ float query[MAX_DIM], weight[THREADS], scratch[THREADS / 32];
    __shared__ int slot[THREADS];
    int row = (int)blockIdx.x, unit = (int)blockIdx.y, tid = (int)threadIdx.x;
    int b = SOURCE == PREFILL ? p.sequence : unit / p.kv_heads;
    int h = SOURCE == PREFILL ? unit / p.group : unit % p.kv_heads;
    if (SOURCE != PREFILL && !is_active(p, b, h))
        return;
    int64_t state = row_state<SOURCE>(p, b, h, unit, row);
    KeyList list = key_list<SOURCE>(p, b, h, row + 1);
    const T *k = (const T *)p.k + cache_offset(p, b, h), *v = (const T *)p.v + cache_offset(p, b, h);
    for (int c = tid; c < p.head_dim; c += THREADS)
        query[c] = load((const T *)p.q + state * p.head_dim + c) * p.scale;
    float o[MAX_DIM / THREADS] = {}, top = -INFINITY, sum = 0.0f;
    for (int first = 0; first < list.total; first += THREADS) {
        __syncthreads();
        int count = list.total - first < THREADS ? list.total - first : THREADS;
        float s = -INFINITY;
        bool there = tid < count && key_there<SOURCE>(list, first + tid);
        slot[tid] = there ? key_slot<SOURCE>(list, first + tid) : -1;
        if (there) {
            s = dot(query, k + (int64_t)slot[tid] * p.head_dim, p.head_dim);
        }
        float best = fmaxf(top, reduce_block<true>(s, scratch));
        float old = top == -INFINITY ? 0.0f : expf(top - best);   /* best is -inf only while there is no key */
        float e = there ? expf(s - best) : 0.0f;
        weight[tid] = e;
        sum = sum * old + reduce_block<false>(e, scratch);
        top = best;
#pragma unroll
        for (int i = 0; i < MAX_DIM / THREADS; i++) {
            int c = tid + i * THREADS;
            if (c >= p.head_dim)
                break;
            float value = o[i] * old;
            for (int j = 0; j < count; j++)
                if (slot[j] >= 0)
                    value += weight[j] * load(v + (int64_t)slot[j] * p.head_dim + c);
            o[i] = value;
        }
    }
#pragma unroll
    for (int i = 0; i < MAX_DIM / THREADS; i++) {
        int c = tid + i * THREADS;
        if (c < p.head_dim && p.out)
            store((T *)p.out + state * p.head_dim + c, sum > 0.0f ? o[i] / sum : 0.0f);
    }
    if (SOURCE != PREFILL && p.lse && tid == 0)
        p.lse[state] = sum > 0.0f ? top + logf(sum) : -INFINITY;
}

/* Mass of 64 prefix keys: two threads a key, each over every other packed row. Grid: (key tiles, units). */
template <typename T> __global__ void __launch_bounds__(THREADS) mass_tile(const __grid_constant__ Problem p)
{
    __shared__ float query[MAX_DIM], part[THREADS];
    int unit = (int)blockIdx.y, tid = (int)threadIdx.x;
    int b = unit / p.kv_heads, h = unit % p.kv_heads;
    if (!is_active(p, b, h))
        return;
    int prefix = key_range(p, b).prefix, first = (int)blockIdx.x * 64;
    int key = first + (tid & 63);
    const T *k = (const T *)p.k + cache_offset(p, b, h) + (int64_t)key * p.head_dim;
    float sum = 0.0f;
    for (int row = 0; row < p.packed && first < prefix; row++) {
        int64_t state = state_of(p, b, h, row);
        float w = p.row_weight ? p.row_weight[(int64_t)b * p.rows + row / p.group] : 1.0f;
        float lse = p.lse[state];
        if (w == 0.0f || lse == -INFINITY)   /* the same for all threads */
            continue;
        __syncthreads();
        for (int c = tid; c < p.head_dim; c += THREADS)
            query[c] = load((const T *)p.q + state * p.head_dim + c) * p.scale;
        __syncthreads();
        if ((row & 1) == (tid >> 6) && key < prefix)
            sum += w * expf(dot(query, k, p.head_dim) - lse);
    }
    part[tid] = sum;
    __syncthreads();
    float total = weight_total(p, b), inverse = total > 0.0f ? 1.0f / total : 0.0f;
    if (tid < 64) {
        part[tid] = (part[tid] + part[tid + 64]) * inverse;
        if (p.mass && key < p.mass_stride)
            p.mass[(int64_t)unit * p.mass_stride + key] = part[tid];
    }
    __syncthreads();
    if (tid == 0 && p.tile_mass && blockIdx.x < p.tile_stride) {
        float tile = 0.0f;
        for (int i = 0; i < 64; i++)
            tile += part[i];
        p.tile_mass[(int64_t)unit * p.tile_stride + blockIdx.x] = tile;
    }
}

template <typename T>
int attend_as(const Problem &p, Source source, cudaStream_t stream, mb_error *err)
{
    dim3 grid((unsigned)p.packed, (unsigned)(p.batch * p.kv_heads));
    if (source == PREFILL)
        attend_row<T, PREFILL><<<dim3((unsigned)p.prefill_rows, (unsigned)p.query_heads), THREADS, 0, stream>>>(p);
    else if (source == PAGES)
        attend_row<T, PAGES><<<grid, THREADS, 0, stream>>>(p);
    else
        attend_row<T, DENSE><<<grid, THREADS, 0, stream>>>(p);
    return check_launch("attention (plain)", err);
}

} /* namespace */

int plain_attend(mb_type type, const Problem &p, bool sparse, cudaStream_t stream, mb_error *err)
{
    Source source = sparse ? PAGES : DENSE;
    MB_WITH_TYPE(type, return attend_as<T>(p, source, stream, err));
}

int plain_prefill(mb_type type, const Problem &p, cudaStream_t stream, mb_error *err)
{
    MB_WITH_TYPE(type, return attend_as<T>(p, PREFILL, stream, err));
}

int plain_mass(mb_type type, const Problem &p, cudaStream_t stream, mb_error *err)
{
    dim3 grid((unsigned)((p.max_prefix + 63) / 64), (unsigned)(p.batch * p.kv_heads));
    if (grid.x == 0)
        return MB_OK;
    MB_WITH_TYPE(type, mass_tile<T><<<grid, THREADS, 0, stream>>>(p));
    return check_launch("attention mass (plain)", err);
}

} /* namespace mb_cuda */
