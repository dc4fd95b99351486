/*
 * mass_sm90.cu - block-average attention mass on sm_90a, bf16, head_dim 128, up to 256 packed rows.
 *
 * The transposed product of keys_sm90.cuh: the sum over query rows stays inside a thread until a last shuffle over
 * four lanes. All queries of a KV head lie in shared memory; a producer thread streams 64-key tiles through a
 * ring, and three consumer warpgroups take them in turn, so that some multiply while others exponentiate; above
 * 128 rows each works in two halves of the rows for the same reason. Each key tile belongs to one warpgroup of one
 * block: no atomics, the same bits in every run. (Measured and dropped: two warpgroups in strict turns; four with
 * smaller accumulators and a third of the exponentials in ordinary arithmetic; both slower.)
 *
 * mass = sum_r w[r] exp(s - lse[r]) / sum_r w[r] is summed as exp2(scale_log2 * s - shift[r]) with
 * shift = lse / ln 2 - log2 w, and divided at the end.
 */
#include "kernels/cuda/keys_sm90.cuh"

namespace mb_cuda
{
namespace
{

constexpr int THREADS = KEYS_THREADS;
constexpr int STAGES = 9;
constexpr uint32_t TILE = KEYS_TILE_BYTES;
constexpr int UNITS = 384;

template <int N> struct MassShared {
    unsigned char q[N * FLASH_D * 2]; /* two panels of N rows */
    unsigned char k[STAGES * TILE];
    float shift[N];
    uint64_t full[STAGES], empty[STAGES];
    int tile_end[UNITS + 1];
};

template <int N> constexpr size_t shared_size = sizeof(MassShared<N>) + 1024;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <int N>
__device__ __forceinline__ void consume(const Problem &p, MassShared<N> &shared, int begin, int end, int group)
{
    constexpr int C = keys_chunk<N>;
    int thread = (int)threadIdx.x - 128, lane = thread & 31, warp = (thread >> 5) & 3;
    uint32_t q = shared_address(shared.q), k = shared_address(shared.k);
    const float *shift = shared.shift + (lane & 3) * 2;
    int unit = 0;
    for (int position = begin; position < end;) {
        while (shared.tile_end[unit + 1] <= position)
            unit++;
        int b = unit / p.kv_heads, h = unit % p.kv_heads, unit_first = shared.tile_end[unit];
        int prefix = key_range(p, b).prefix;
        float total = weight_total(p, b), inverse = total > 0.0f ? 1.0f / total : 0.0f;
        float *mass = p.mass + (int64_t)unit * p.mass_stride;
        named_sync(2, KEYS_GROUPS * 128); /* everyone is done with the last unit's queries */
        load_queries<N>(p, shared.q, shared.shift, b, h, thread, KEYS_GROUPS * 128);
        named_sync(2, KEYS_GROUPS * 128);
        int unit_end = shared.tile_end[unit + 1] < end ? shared.tile_end[unit + 1] : end;
        /* Tiles go round the warpgroups by their number in this block's share, as the ring's stages do. */
        int tile = position + (group - (position - begin) % KEYS_GROUPS + KEYS_GROUPS) % KEYS_GROUPS;
#pragma unroll 1
        for (; tile < unit_end; tile += KEYS_GROUPS) {
            int stage = (tile - begin) % STAGES;
            uint32_t k_tile = k + (uint32_t)stage * TILE;
            float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            barrier_wait(shared_address(shared.full + stage), (uint32_t)((tile - begin) / STAGES) & 1);
            float left[C / 2], right[C / 2];
            multiply_rows<N, C>(left, k_tile, q, 0);
            if constexpr (C < N) {
                multiply_rows<N, C>(right, k_tile, q, C);
                wgmma_wait<1>();
                hold(left);
                add_rows<C>(left, shift, p.scale_log2, sum);
                wgmma_wait<0>();
                hold(right);
            } else {
                wgmma_wait<0>();
                hold(left);
            }
            if (lane == 0)
                barrier_arrive(shared_address(shared.empty + stage));
            if constexpr (C < N)
                add_rows<C>(right, shift + C, p.scale_log2, sum);
            else
                add_rows<C>(left, shift, p.scale_log2, sum);
            int key = (tile - unit_first) * KEYS_TILE + warp * 16 + lane / 4;
#pragma unroll
            for (int i = 0; i < 2; i++, key += 8) {
                float value = quad_sum(sum[2 * i] + sum[2 * i + 1]) * inverse;
                if ((lane & 3) == 0 && key < p.mass_stride)
                    mass[key] = key < prefix ? value : 0.0f;
            }
        }
        position = unit_end;
    }
}

#endif

/* Grid: one block a multiprocessor; each takes an equal share of the 64-key tiles of all (sequence, KV head). */
template <int N>
__global__ void __launch_bounds__(THREADS, 1)
    mass_kernel(const __grid_constant__ Problem p, const __grid_constant__ CUtensorMap k_map)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char dynamic[];
    MassShared<N> &shared = *(MassShared<N> *)(dynamic + ((1024 - (shared_address(dynamic) & 1023)) & 1023));
    int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);
    int units = p.batch * p.kv_heads;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared_address(shared.full + i), 1);
            barrier_init(shared_address(shared.empty + i), 4); /* the four warps that had the tile */
        }
        barrier_init_fence();
        prefetch_map(&k_map);
    }
    if (threadIdx.x < 32) {
        int lane = (int)threadIdx.x, total = 0;
        for (int first = 0; first < units; first += 32) {
            int u = first + lane, x = 0;
            if (u < units && is_active(p, u / p.kv_heads, u % p.kv_heads))
                x = (key_range(p, u / p.kv_heads).prefix + KEYS_TILE - 1) / KEYS_TILE;
            for (int step = 1; step < 32; step *= 2) {
                int other = __shfl_up_sync(0xffffffffu, x, step);
                x += lane >= step ? other : 0;
            }
            if (u < units)
                shared.tile_end[u + 1] = total + x;
            total += __shfl_sync(0xffffffffu, x, 31);
        }
        if (lane == 0)
            shared.tile_end[0] = 0;
    }
    __syncthreads();
    int tiles = shared.tile_end[units];
    int begin = flash_share(tiles, (int)blockIdx.x, (int)gridDim.x);
    int end = flash_share(tiles, (int)blockIdx.x + 1, (int)gridDim.x);
    if (group == 0) {
        registers_shrink<24>();
        if (threadIdx.x == 0) {
            Ring<STAGES> ring;
            int unit = 0;
#pragma unroll 1
            for (int tile = begin; tile < end; tile++) {
                while (shared.tile_end[unit + 1] <= tile)
                    unit++;
                uint32_t barrier = shared_address(shared.full + ring.stage);
                uint32_t place = shared_address(shared.k) + (uint32_t)ring.stage * TILE;
                barrier_wait(shared_address(shared.empty + ring.stage), ring.phase ^ 1);
                copy_keys(place, &k_map, barrier, (tile - shared.tile_end[unit]) * KEYS_TILE, unit);
                ring.next();
            }
        } else if (threadIdx.x >= 32) {
            /* The idle warps write the zeros behind each prefix. */
            int64_t padded = ((int64_t)p.max_prefix + 63) / 64 * 64;
            padded = padded < p.mass_stride ? padded : p.mass_stride;
            for (int u = (int)blockIdx.x; u < units; u += (int)gridDim.x) {
                int prefix = key_range(p, u / p.kv_heads).prefix;
                if (!is_active(p, u / p.kv_heads, u % p.kv_heads))
                    continue;
                for (int64_t j = (prefix + 63) / 64 * 64 + (int)threadIdx.x - 32; j < padded; j += 96)
                    p.mass[(int64_t)u * p.mass_stride + j] = 0.0f;
            }
        }
    } else {
        registers_grow<160>();
        consume<N>(p, shared, begin, end, group - 1);
    }
#endif
}

typedef void (*MassKernel)(const Problem, const CUtensorMap);

struct Variant {
    int columns;
    MassKernel kernel;
    size_t bytes;
};

template <int N> Variant variant()
{
    return {N, mass_kernel<N>, shared_size<N>};
}

Variant choose(int packed)
{
    if (packed <= 64)
        return variant<64>();
    if (packed <= 128)
        return variant<128>();
    if (packed <= 192)
        return variant<192>();
    return packed <= 224 ? variant<224>() : variant<256>();
}

} /* namespace */

bool sm90_mass_serves(const mb_cuda_chip *chip, mb_type type, const Problem &p)
{
    return sm90_serves(chip, type, p) && p.head_dim == FLASH_D && p.packed <= 256 && p.mass &&
           p.batch * p.kv_heads <= UNITS && p.max_prefix >= 1024;
}

int sm90_mass(const mb_cuda_chip *chip, const Problem &p, cudaStream_t stream, mb_error *err)
{
    CUtensorMap k_map;
    int rc = flash_map(chip, &k_map, p.k, p, p.batch * p.kv_heads, KEYS_TILE, err);
    if (rc != MB_OK)
        return rc;
    Variant v = choose(p.packed);
    v.kernel<<<chip->multiprocessors, THREADS, v.bytes, stream>>>(p, k_map);
    return check_launch("attention mass (sm_90a)", err);
}

int sm90_mass_setup(mb_error *err)
{
    static_assert(shared_size<256> <= 227 * 1024, "fits a multiprocessor");
    int sizes[] = {64, 128, 192, 224, 256};
    for (int i = 0; i < 5; i++) {
        Variant v = choose(sizes[i]);
        cudaFuncSetAttribute(v.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)v.bytes);
    }
    return check_launch("setting up the sm_90a mass kernels", err);
}

} /* namespace mb_cuda */
