/*
 * attend_sm90.cu - exact block attention on sm_90a: launching flash_sm90.cuh, merging the partial states of the
 * units that several clusters shared, and turning per-row tile sums into tile masses.
 *
 * Which cluster worked on which tiles follows from the lengths alone, so the merge derives it again instead of
 * reading a list, and adds the parts in ascending order of cluster.
 */
#include "kernels/cuda/flash_sm90.cuh"

namespace mb_cuda {
namespace {

constexpr int WARPS = 4;

/* Grid: (rows of a group / WARPS, units). Units that one cluster finished alone are already written. */
template <int PAIR> __global__ void __launch_bounds__(WARPS * 32)
    merge_shares(const __grid_constant__ Problem p, int clusters)
{
    __shared__ int before[WARPS], total[WARPS];
    int groups = flash_groups(p.packed, PAIR), units = p.batch * p.kv_heads * groups, unit = (int)blockIdx.y;
    int warp = (int)threadIdx.x >> 5, lane = (int)threadIdx.x & 31;
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");   /* the attention kernel is done */
#endif
    int sums[2] = {0, 0}, mine = flash_unit_tiles(p, unit, groups);
    for (int u = (int)threadIdx.x; u < units; u += WARPS * 32) {
        int tiles = flash_unit_tiles(p, u, groups);
        sums[0] += u < unit ? tiles : 0;
        sums[1] += tiles;
    }
    for (int step = 16; step > 0; step /= 2) {
        sums[0] += __shfl_xor_sync(0xffffffffu, sums[0], step);
        sums[1] += __shfl_xor_sync(0xffffffffu, sums[1], step);
    }
    if (lane == 0) {
        before[warp] = sums[0];
        total[warp] = sums[1];
    }
    __syncthreads();
    int first = 0, tiles = 0;
    for (int i = 0; i < WARPS; i++) {
        first += before[i];
        tiles += total[i];
    }
    int head = unit / groups, b = head / p.kv_heads, h = head % p.kv_heads;
    int local = (int)blockIdx.x * WARPS + warp, row = (unit % groups) * FLASH_ROWS * PAIR + local;
    if (row >= p.packed || !is_active(p, b, h))
        return;
    int c0 = 0, c1 = -1;   /* clusters that hold the unit's first and last tile */
    if (mine > 0) {
        c0 = flash_owner(tiles, first, clusters);
        c1 = flash_owner(tiles, first + mine - 1, clusters);
        if (c0 == c1)
            return;
    }
    /* A lane a part: its place in the workspace and its weight. Every cluster in between has tiles. */
    float top = -INFINITY, sum = 0.0f;
    float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int from = c0; from <= c1; from += 32) {
        int c = from + lane, count = c1 - from + 1 < 32 ? c1 - from + 1 : 32;
        int slot = (2 * c + (first > flash_share(tiles, c, clusters) ? 1 : 0)) * FLASH_ROWS * PAIR + local;
        float lse = c <= c1 ? p.part_lse[slot] : -INFINITY, best = lse;
        for (int step = 16; step > 0; step /= 2)
            best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, step));
        best = fmaxf(best, top);
        float old = top > -INFINITY ? fast_exp2((top - best) * LOG2E) : 0.0f;
        float weight = lse > -INFINITY ? fast_exp2((lse - best) * LOG2E) : 0.0f;
        top = best;
        sum *= old;
        o = make_float4(o.x * old, o.y * old, o.z * old, o.w * old);
#pragma unroll 8
        for (int i = 0; i < count; i++) {
            float w = __shfl_sync(0xffffffffu, weight, i);
            int64_t place = __shfl_sync(0xffffffffu, slot, i);
            float4 x = *(const float4 *)(p.part_out + place * FLASH_D + lane * 4);
            sum += w;
            o = make_float4(o.x + w * x.x, o.y + w * x.y, o.z + w * x.z, o.w + w * x.w);
        }
    }
    float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
    int64_t state = state_of(p, b, h, row);
    if (p.out) {
        uint2 packed = make_uint2(pack_bf16(o.x * inverse, o.y * inverse),
                                  pack_bf16(o.z * inverse, o.w * inverse));
        *(uint2 *)((__nv_bfloat16 *)p.out + state * FLASH_D + lane * 4) = packed;
    }
    if (p.lse && lane == 0)
        p.lse[state] = sum > 0.0f ? top + logf(sum) : -INFINITY;
}

/* tile_mass from the per-row tile sums (base-2 logarithms) and the final log-sum-exps; a warp a tile.
 * Grid: (tiles / WARPS, batch * kv_heads). */
__global__ void __launch_bounds__(WARPS * 32) finish_tiles(const __grid_constant__ Problem p)
{
    extern __shared__ float shift[];   /* [packed]: lse in base 2 minus log2 of the weight */
    int unit = (int)blockIdx.y, b = unit / p.kv_heads, h = unit % p.kv_heads;
    if (!is_active(p, b, h))
        return;
    for (int row = (int)threadIdx.x; row < p.packed; row += WARPS * 32) {
        float w = p.row_weight ? p.row_weight[(int64_t)b * p.rows + row / p.group] : 1.0f;
        float lse = p.lse[state_of(p, b, h, row)];
        shift[row] = w > 0.0f && lse > -INFINITY ? lse * LOG2E - log2f(w) : INFINITY;
    }
    __syncthreads();
    float total = weight_total(p, b), inverse = total > 0.0f ? 1.0f / total : 0.0f;
    int tiles = (p.max_prefix + 63) / 64, used = (key_range(p, b).prefix + 63) / 64;
    int lane = (int)threadIdx.x & 31;
    int step = (int)gridDim.x * WARPS;
    for (int tile = (int)blockIdx.x * WARPS + ((int)threadIdx.x >> 5); tile < tiles; tile += step) {
        const float *part = p.tile_part + ((int64_t)unit * tiles + tile) * p.packed;
        float sum = 0.0f;
        if (tile < used)
#pragma unroll 8
            for (int row = lane; row < p.packed; row += 32)
                sum += fast_exp2(part[row] - shift[row]);
        for (int distance = 16; distance > 0; distance /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, distance);
        if (lane == 0 && tile < p.tile_stride)
            p.tile_mass[(int64_t)unit * p.tile_stride + tile] = sum * inverse;
    }
}

int clusters_of(const mb_cuda_chip *chip, int pair)
{
    return pair == 2 ? chip->pair_clusters : chip->multiprocessors;
}

int pair_of(int packed) { return packed > FLASH_ROWS ? 2 : 1; }

} /* namespace */

typedef CUresult (*EncodeTiled)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

int flash_map(const mb_cuda_chip *chip, CUtensorMap *map, const void *base, const Problem &p, int heads, mb_error *err)
{
    cuuint64_t sizes[3] = {FLASH_D, (cuuint64_t)p.capacity, (cuuint64_t)heads};
    cuuint64_t strides[2] = {FLASH_D * 2, (cuuint64_t)p.capacity * FLASH_D * 2};
    cuuint32_t box[3] = {64, 64, 1}, steps[3] = {1, 1, 1};
    EncodeTiled encode = (EncodeTiled)chip->encode_tiled;
    CUresult code = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)base, sizes, strides, box, steps,
                           CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                           CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (code != CUDA_SUCCESS)
        return mb_fail(err, MB_E_BUG,
                       "CUDA attention: the cache at %p (%d slots, %d heads) has no tensor map (driver code %d)",
                       base, p.capacity, heads, (int)code);
    return MB_OK;
}

int flash_launch(FlashKernel kernel, const Problem &p, const CUtensorMap &k_map, const CUtensorMap &v_map,
                 int pair, int clusters, cudaStream_t stream, mb_error *err)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = dim3((unsigned)(clusters * pair), 1, 1);
    config.blockDim = dim3(FLASH_THREADS, 1, 1);
    config.dynamicSmemBytes = FLASH_SHARED_BYTES;
    config.stream = stream;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = (unsigned)pair;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    cudaLaunchKernelEx(&config, kernel, p, k_map, v_map);
    return check_launch("attention (sm_90a)", err);
}

bool sm90_serves(const mb_cuda_chip *chip, mb_type type, const Problem &p)
{
    return chip->allow_sm90 && chip->pair_clusters > 0 && chip->encode_tiled && type == MB_BF16 &&
           p.head_dim == FLASH_D && p.packed > 0 &&
           (int64_t)p.batch * p.kv_heads * flash_groups(p.packed, pair_of(p.packed)) <= FLASH_UNITS;
}

size_t sm90_partial_bytes(const mb_cuda_chip *chip, const Problem &p)
{
    int pair = pair_of(p.packed);
    return (size_t)2 * clusters_of(chip, pair) * pair * FLASH_ROWS * (FLASH_D + 1) * sizeof(float);
}

size_t sm90_tile_bytes(const Problem &p)
{
    return (size_t)p.batch * p.kv_heads * ((p.max_prefix + 63) / 64) * p.packed * sizeof(float);
}

/* p.part_out holds sm90_partial_bytes; p.tile_part is set when tile_mass is to be made here. */
int sm90_attend(const mb_cuda_chip *chip, const Problem &given, cudaStream_t stream, mb_error *err)
{
    Problem p = given;
    int pair = pair_of(p.packed), clusters = clusters_of(chip, pair);
    p.part_lse = p.part_out + (size_t)2 * clusters * pair * FLASH_ROWS * FLASH_D;
    CUtensorMap k_map, v_map;
    int rc = flash_map(chip, &k_map, p.k, p, p.batch * p.kv_heads, err);
    if (rc == MB_OK)
        rc = flash_map(chip, &v_map, p.v, p, p.batch * p.kv_heads, err);
    if (rc != MB_OK)
        return rc;
    FlashKernel kernel = pair == 2 ? flash_kernel<FLASH_BLOCK, 2> : flash_kernel<FLASH_BLOCK, 1>;
    if (p.tile_part)
        kernel = pair == 2 ? flash_kernel<FLASH_BLOCK_TILES, 2> : flash_kernel<FLASH_BLOCK_TILES, 1>;
    rc = flash_launch(kernel, p, k_map, v_map, pair, clusters, stream, err);
    if (rc != MB_OK)
        return rc;
    /* The merge may be scheduled while the last attention blocks drain; it waits for them itself. */
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = dim3((unsigned)(FLASH_ROWS * pair / WARPS),
                          (unsigned)(p.batch * p.kv_heads * flash_groups(p.packed, pair)), 1);
    config.blockDim = dim3(WARPS * 32, 1, 1);
    config.stream = stream;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    cudaLaunchKernelEx(&config, pair == 2 ? merge_shares<2> : merge_shares<1>, p, clusters);
    if (p.tile_part && p.max_prefix > 0) {
        /* One tile a warp while that does not make far more blocks than the chip holds, at most eight. */
        int64_t tiles = (p.max_prefix + 63) / 64, units = (int64_t)p.batch * p.kv_heads;
        int64_t turns = tiles * units / ((int64_t)chip->multiprocessors * 16 * WARPS);
        turns = turns < 1 ? 1 : turns > 8 ? 8 : turns;
        dim3 grid((unsigned)((tiles + WARPS * turns - 1) / (WARPS * turns)), (unsigned)units);
        finish_tiles<<<grid, WARPS * 32, (size_t)p.packed * sizeof(float), stream>>>(p);
    }
    return check_launch("merging attention states (sm_90a)", err);
}

int sm90_setup(mb_cuda_chip *chip, mb_error *err)
{
    if (chip->capability != 90)   /* sm_90a code runs on 9.0 alone */
        return MB_OK;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    void *entry = NULL;
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
    cudaGetLastError();
    if (found != cudaDriverEntryPointSuccess || !entry)
        return MB_OK;
    FlashKernel kernels[] = {flash_kernel<FLASH_BLOCK, 1>, flash_kernel<FLASH_BLOCK, 2>,
                             flash_kernel<FLASH_BLOCK_TILES, 1>, flash_kernel<FLASH_BLOCK_TILES, 2>};
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++)
        cudaFuncSetAttribute(kernels[i], cudaFuncAttributeMaxDynamicSharedMemorySize, (int)FLASH_SHARED_BYTES);
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = dim3((unsigned)(2 * (chip->multiprocessors / 2)), 1, 1);
    config.blockDim = dim3(FLASH_THREADS, 1, 1);
    config.dynamicSmemBytes = FLASH_SHARED_BYTES;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = 2;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    int clusters = 0;
    cudaOccupancyMaxActiveClusters(&clusters, flash_kernel<FLASH_BLOCK, 2>, &config);
    int rc = check_launch("setting up the sm_90a attention kernels", err);
    if (rc == MB_OK) {
        chip->encode_tiled = entry;
        chip->pair_clusters = clusters;
    }
    return rc;
}

} /* namespace mb_cuda */
