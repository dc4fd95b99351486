/*
 * attend_sm90.cu - exact block attention on sm_90a: choosing and launching a kernel of flash_sm90.cuh, merging the
 * partial states of the units that several clusters shared, and turning per-row tile sums into tile masses.
 *
 * Which cluster worked on which tiles follows from the lengths alone. The attention kernel lists it for the merge,
 * which adds the parts in ascending order of cluster.
 */
#include "kernels/cuda/flash_kinds.cuh"

namespace mb_cuda
{
namespace
{

constexpr int WARPS = 4;

/* A warp a row. Grid: (rows of a cluster / WARPS, units). Units that one cluster finished alone are already
 * written. */
__global__ void __launch_bounds__(WARPS * 32) merge_shares(const __grid_constant__ Problem p, int rows)
{
    constexpr int PARTS = 20; /* asked for at once: a sequence alone on the chip is cut into 17 or 18 */
    int groups = flash_groups(p.packed, rows), unit = (int)blockIdx.y, lane = (int)threadIdx.x & 31;
    int head = unit / groups, b = head / p.kv_heads, h = head % p.kv_heads;
    int local = (int)blockIdx.x * WARPS + ((int)threadIdx.x >> 5), row = (unit % groups) * rows + local;
    wait_for_dependency(); /* the attention kernel is done; nobody may leave earlier */
    int2 parts = p.part_list[unit];
    if (row >= p.packed || parts.y == FLASH_WHOLE || !is_active(p, b, h))
        return;
    int64_t state = state_of(p, b, h, row);
    int c0 = parts.x / 2;
    for (int channel = 0; channel < p.head_dim; channel += 128) {
        bool there = channel + lane * 4 < p.head_dim;
        float top = -INFINITY, sum = 0.0f;
        float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (int from = c0; from <= parts.y; from += PARTS) {
            int count = parts.y - from + 1 < PARTS ? parts.y - from + 1 : PARTS;
            int slot = (from + lane == c0 ? parts.x : 2 * (from + lane)) * rows + local;
            float lse = lane < count ? p.part_lse[slot] : -INFINITY, best = lse;
            float4 x[PARTS];
#pragma unroll
            for (int i = 0; i < PARTS; i++) { /* before the weights are known */
                int64_t place = __shfl_sync(0xffffffffu, slot, i);
                if (there && i < count)
                    x[i] = *(const float4 *)(p.part_out + place * p.head_dim + channel + lane * 4);
            }
            for (int step = 16; step > 0; step /= 2)
                best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, step));
            best = fmaxf(best, top);
            float old = top > -INFINITY ? fast_exp2((top - best) * LOG2E) : 0.0f;
            float weight = lse > -INFINITY ? fast_exp2((lse - best) * LOG2E) : 0.0f;
            top = best;
            sum *= old;
            o = make_float4(o.x * old, o.y * old, o.z * old, o.w * old);
#pragma unroll
            for (int i = 0; i < PARTS; i++) {
                float w = __shfl_sync(0xffffffffu, weight, i);
                if (i < count) {
                    sum += w;
                    o = make_float4(o.x + w * x[i].x, o.y + w * x[i].y, o.z + w * x[i].z, o.w + w * x[i].w);
                }
            }
        }
        float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
        if (p.out && there) {
            uint2 packed =
                make_uint2(pack_bf16(o.x * inverse, o.y * inverse), pack_bf16(o.z * inverse, o.w * inverse));
            *(uint2 *)((__nv_bfloat16 *)p.out + state * p.head_dim + channel + lane * 4) = packed;
        }
        if (p.lse && lane == 0 && channel == 0)
            p.lse[state] = sum > 0.0f ? top + logf(sum) : -INFINITY;
    }
}

/* tile_mass from the per-row tile sums (base-2 logarithms) and the final log-sum-exps; a warp a tile.
 * Grid: (tiles / WARPS, batch * kv_heads). */
__global__ void __launch_bounds__(WARPS * 32) finish_tiles(const __grid_constant__ Problem p)
{
    extern __shared__ float shift[]; /* [packed]: lse in base 2 minus log2 of the weight */
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

/* Block attention with tile masses made on the way, or without. */
const FlashKind *kind_of(const Problem &p, bool tiles)
{
    return flash_find(tiles ? FLASH_BLOCK_TILES : FLASH_BLOCK, p.head_dim, p.packed);
}

size_t part_rows(const mb_cuda_chip *chip, const FlashKind *kind)
{
    return kind ? (size_t)2 * flash_clusters(chip, *kind) * kind->rows : 0;
}

} /* namespace */

const FlashKind *flash_find(FlashMode mode, int head_dim, int rows)
{
    const FlashKind *best = NULL;
    int least = 0;
    for (int i = 0; i < FLASH_KINDS; i++) {
        const FlashKind *kind = flash_kind_at(i);
        int padded = flash_groups(rows, kind->rows) * kind->rows;
        if (kind->mode == mode && kind->head_dim == head_dim && (!best || padded < least)) {
            best = kind;
            least = padded;
        }
    }
    return best;
}

int flash_clusters(const mb_cuda_chip *chip, const FlashKind &kind)
{
    return kind.pair == 2 ? chip->pair_clusters : chip->multiprocessors;
}

typedef CUresult (*EncodeTiled)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

int flash_map(const mb_cuda_chip *chip, CUtensorMap *map, const void *base, const Problem &p, int heads, int slots,
              mb_error *err)
{
    cuuint64_t row = (cuuint64_t)p.head_dim * 2;
    cuuint64_t sizes[3] = {(cuuint64_t)p.head_dim, (cuuint64_t)p.capacity, (cuuint64_t)heads};
    cuuint64_t strides[2] = {row, (cuuint64_t)p.capacity * row};
    cuuint32_t box[3] = {64, (cuuint32_t)slots, 1}, steps[3] = {1, 1, 1};
    EncodeTiled encode = (EncodeTiled)chip->encode_tiled;
    /* With a promotion to 256 bytes a memory-bound kernel is 10 % slower. */
    CUresult code = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)base, sizes, strides, box, steps,
                           CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                           CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (code != CUDA_SUCCESS)
        return mb_fail(err, MB_E_BUG,
                       "CUDA attention: the cache at %p (%d slots, %d heads) has no tensor map (driver code %d)",
                       base, p.capacity, heads, (int)code);
    return MB_OK;
}

int flash_launch(const mb_cuda_chip *chip, const FlashKind &kind, const Problem &p, int heads, int clusters,
                 bool early, cudaStream_t stream, mb_error *err)
{
    CUtensorMap k_map, v_map;
    int rc = flash_map(chip, &k_map, p.k, p, heads, kind.keys / kind.pair, err);
    if (rc == MB_OK)
        rc = flash_map(chip, &v_map, p.v, p, heads, kind.keys / kind.pair, err);
    if (rc != MB_OK)
        return rc;
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    config.gridDim = dim3((unsigned)(clusters * kind.pair), 1, 1);
    config.blockDim = dim3((unsigned)kind.threads, 1, 1);
    config.dynamicSmemBytes = kind.shared;
    config.stream = stream;
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim.x = (unsigned)kind.pair;
    attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    config.attrs = attributes;
    config.numAttrs = early ? 2 : 1;
    cudaLaunchKernelEx(&config, kind.kernel, p, k_map, v_map);
    return check_launch("attention (sm_90a)", err);
}

bool sm90_serves(const mb_cuda_chip *chip, mb_type type, const Problem &p)
{
    const FlashKind *kind = kind_of(p, false), *tiles = kind_of(p, true);
    int rows = !tiles || kind->rows < tiles->rows ? (kind ? kind->rows : 0) : tiles->rows;
    return chip->allow_sm90 && chip->pair_clusters > 0 && chip->encode_tiled && type == MB_BF16 && kind &&
           p.packed > 0 && (int64_t)p.batch * p.kv_heads * flash_groups(p.packed, rows) <= FLASH_UNITS;
}

/* [outputs][their lse][list of parts], for either kind of kernel. */
size_t sm90_partial_bytes(const mb_cuda_chip *chip, const Problem &p)
{
    size_t plain = part_rows(chip, kind_of(p, false)), tiles = part_rows(chip, kind_of(p, true));
    return (plain > tiles ? plain : tiles) * (p.head_dim + 1) * sizeof(float) + FLASH_UNITS * sizeof(int2);
}

/* 0: the kernels for this head_dim make no tile masses. */
size_t sm90_tile_bytes(const Problem &p)
{
    if (!kind_of(p, true))
        return 0;
    return (size_t)p.batch * p.kv_heads * ((p.max_prefix + 63) / 64) * p.packed * sizeof(float);
}

/* p.part_out holds sm90_partial_bytes; p.tile_part is set when tile_mass is to be made here. */
int sm90_attend(const mb_cuda_chip *chip, const Problem &given, cudaStream_t stream, mb_error *err)
{
    Problem p = given;
    const FlashKind *kind = kind_of(p, p.tile_part != NULL);
    size_t slots = part_rows(chip, kind);
    p.part_lse = p.part_out + slots * p.head_dim;
    p.part_list = (int2 *)(p.part_lse + slots);
    int rc = flash_launch(chip, *kind, p, p.batch * p.kv_heads, flash_clusters(chip, *kind), false, stream, err);
    if (rc != MB_OK)
        return rc;
    /* The merge may be scheduled while the last attention blocks drain. */
    dim3 rows((unsigned)(kind->rows / WARPS),
              (unsigned)(p.batch * p.kv_heads * flash_groups(p.packed, kind->rows)));
    launch_dependent(chip, merge_shares, rows, dim3(WARPS * 32), 0, stream, p, kind->rows);
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
    if (chip->capability != 90) /* sm_90a code runs on 9.0 alone */
        return MB_OK;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    void *entry = NULL;
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
    cudaGetLastError();
    if (found != cudaDriverEntryPointSuccess || !entry)
        return MB_OK;
    const FlashKind *pair = NULL;
    for (int i = 0; i < FLASH_KINDS; i++) {
        const FlashKind *kind = flash_kind_at(i);
        cudaFuncSetAttribute(kind->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)kind->shared);
        if (kind->pair == 2)
            pair = kind; /* all of them take a multiprocessor a block */
    }
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute = {};
    config.gridDim = dim3((unsigned)(2 * (chip->multiprocessors / 2)), 1, 1);
    config.blockDim = dim3((unsigned)pair->threads, 1, 1);
    config.dynamicSmemBytes = pair->shared;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = 2;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    int clusters = 0;
    cudaOccupancyMaxActiveClusters(&clusters, pair->kernel, &config);
    int rc = check_launch("setting up the sm_90a attention kernels", err);
    if (rc == MB_OK) {
        chip->encode_tiled = entry;
        chip->pair_clusters = clusters;
    }
    return rc;
}

} /* namespace mb_cuda */
