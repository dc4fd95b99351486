/*
 * mass_mma.cu - block-average attention mass on mma.sync (sm_80 and later), bf16 or f16, head_dim 64 or 128.
 *
 * The transposed product: a block owns 64 keys (16 a warp, kept in registers as the left operand) and walks all
 * packed query rows in chunks of 64 as the right operand, so the sum over rows stays inside a thread and no two
 * blocks ever add to the same entry. exp(s - lse) * w is exp2(scale_log2 * s - (lse / ln 2 - log2 w)), one
 * number per row, prepared in shared memory.
 */
#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/mma.cuh"

namespace mb_cuda {
namespace {

constexpr int KEYS = 64, CHUNK = 64, THREADS = 128;

template <int D> constexpr int chunk_bytes = CHUNK * D * 2;
template <int D> constexpr int shared_bytes = 3 * chunk_bytes<D> + 2 * CHUNK * 4 + KEYS * 4;

template <typename T, int D>
__global__ void __launch_bounds__(THREADS) mass_mma(const __grid_constant__ Problem p)
{
    extern __shared__ __align__(128) unsigned char shared[];
    float *shift = (float *)(shared + 3 * chunk_bytes<D>);   /* [2][CHUNK] */
    float *sums = shift + 2 * CHUNK;                         /* [KEYS] */
    int unit = (int)blockIdx.y, tid = (int)threadIdx.x, warp = tid >> 5, lane = tid & 31;
    int b = unit / p.kv_heads, h = unit % p.kv_heads;
    if (!is_active(p, b, h))
        return;
    int prefix = key_range(p, b).prefix, first = (int)blockIdx.x * KEYS;
    float total = weight_total(p, b), inverse = total > 0.0f ? 1.0f / total : 0.0f;
    uint32_t k_tile = shared_address(shared), q_tiles = k_tile + chunk_bytes<D>;
    const T *k = (const T *)p.k + cache_offset(p, b, h);
    constexpr int CHUNKS = D / 8;

    auto load = [&](int row0) {
        int stage = (row0 / CHUNK) & 1;
        if (row0 < p.packed) {
#pragma unroll
            for (int i = 0; i < CHUNK * CHUNKS / THREADS; i++) {
                int index = tid + i * THREADS, row = index / CHUNKS, chunk = index % CHUNKS;
                bool inside = row0 + row < p.packed;
                int64_t state = inside ? state_of(p, b, h, row0 + row) : 0;
                copy_async16(q_tiles + stage * chunk_bytes<D> + swizzled<D>(row, chunk),
                             (const T *)p.q + state * D + chunk * 8, inside);
            }
            if (tid < CHUNK) {
                float value = INFINITY;   /* a row that counts nothing: exp2(-inf) = 0 */
                if (row0 + tid < p.packed) {
                    float lse = p.lse[state_of(p, b, h, row0 + tid)];
                    float w = p.row_weight ? p.row_weight[(int64_t)b * p.rows + (row0 + tid) / p.group] : 1.0f;
                    if (w > 0.0f && lse > -INFINITY)
                        value = lse * LOG2E - log2f(w);
                }
                shift[stage * CHUNK + tid] = value;
            }
        }
        copy_commit();
    };

    float sum[2] = {0.0f, 0.0f};
    if (first < prefix) {
#pragma unroll
        for (int i = 0; i < KEYS * CHUNKS / THREADS; i++) {
            int index = tid + i * THREADS, row = index / CHUNKS, chunk = index % CHUNKS;
            bool inside = first + row < prefix;
            copy_async16(k_tile + swizzled<D>(row, chunk), k + (int64_t)(inside ? first + row : 0) * D + chunk * 8,
                         inside);
        }
        load(0);
        load(CHUNK);
        uint32_t keys[D / 16][4];
        for (int row0 = 0; row0 < p.packed; row0 += CHUNK) {
            copy_wait<1>();
            __syncthreads();
            if (row0 == 0)
#pragma unroll
                for (int c = 0; c < D / 16; c++)
                    load_matrix4(keys[c], k_tile + swizzled<D>(warp * 16 + (lane & 15), c * 2 + (lane >> 4)));
            int stage = (row0 / CHUNK) & 1;
            uint32_t q_tile = q_tiles + stage * chunk_bytes<D>;
#pragma unroll
            for (int g = 0; g < CHUNK / 16; g++) {
                float s[2][4] = {};
#pragma unroll
                for (int c = 0; c < D / 16; c++) {
                    uint32_t r[4];
                    load_matrix4(r, q_tile + swizzled<D>(g * 16 + (lane & 7) + ((lane >> 4) << 3),
                                                         c * 2 + ((lane >> 3) & 1)));
                    multiply<T>(s[0], keys[c], r[0], r[1]);
                    multiply<T>(s[1], keys[c], r[2], r[3]);
                }
#pragma unroll
                for (int n = 0; n < 2; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        sum[e >> 1] += fast_exp2(s[n][e] * p.scale_log2 -
                                                 shift[stage * CHUNK + g * 16 + n * 8 + (lane & 3) * 2 + (e & 1)]);
            }
            __syncthreads();
            load(row0 + 2 * CHUNK);
        }
        copy_wait<0>();
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float mass = quad_sum(sum[i]) * inverse;
        int key = warp * 16 + lane / 4 + 8 * i;
        if ((lane & 3) == 0) {
            sums[key] = first + key < prefix ? mass : 0.0f;
            if (p.mass && first + key < p.mass_stride)
                p.mass[(int64_t)unit * p.mass_stride + first + key] = sums[key];
        }
    }
    if (p.tile_mass) {
        __syncthreads();
        if (tid == 0 && blockIdx.x < p.tile_stride) {
            float tile = 0.0f;
            for (int i = 0; i < KEYS; i++)
                tile += sums[i];
            p.tile_mass[(int64_t)unit * p.tile_stride + blockIdx.x] = tile;
        }
    }
}

} /* namespace */

int mma_mass(mb_type type, const Problem &p, cudaStream_t stream, mb_error *err)
{
    dim3 grid((unsigned)((p.max_prefix + KEYS - 1) / KEYS), (unsigned)(p.batch * p.kv_heads));
    if (grid.x == 0)
        return MB_OK;
    if (p.head_dim == 64 && type == MB_F16)
        mass_mma<__half, 64><<<grid, THREADS, shared_bytes<64>, stream>>>(p);
    else if (p.head_dim == 64)
        mass_mma<__nv_bfloat16, 64><<<grid, THREADS, shared_bytes<64>, stream>>>(p);
    else if (type == MB_F16)
        mass_mma<__half, 128><<<grid, THREADS, shared_bytes<128>, stream>>>(p);
    else
        mass_mma<__nv_bfloat16, 128><<<grid, THREADS, shared_bytes<128>, stream>>>(p);
    return check_launch("attention mass (mma.sync)", err);
}

int mma_mass_setup(mb_error *err)
{
    const cudaFuncAttribute most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    cudaFuncSetAttribute(mass_mma<__nv_bfloat16, 64>, most, shared_bytes<64>);
    cudaFuncSetAttribute(mass_mma<__nv_bfloat16, 128>, most, shared_bytes<128>);
    cudaFuncSetAttribute(mass_mma<__half, 64>, most, shared_bytes<64>);
    cudaFuncSetAttribute(mass_mma<__half, 128>, most, shared_bytes<128>);
    return check_launch("setting the mass kernels' shared memory", err);
}

} /* namespace mb_cuda */
