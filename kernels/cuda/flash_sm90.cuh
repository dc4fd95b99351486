/*
 * flash_sm90.cuh - the sm_90a attention kernel behind attend_sm90.cu and prefill_sm90.cu: bf16, head_dim 128.
 *
 * A cluster of one or two blocks owns 128 or 256 query rows and walks tiles of 128 keys. In each block one
 * producer thread fills a ring of three K and three V tiles by bulk tensor copies (in a pair each block fetches
 * half of a tile and multicasts it, so a key is read once per 256 rows); two consumer warpgroups hold 64 rows
 * each. A warpgroup has the logits of tile i in flight together with the output of tile i - 1 and does its
 * exponentials meanwhile, and the two warpgroups take turns at the tensor cores, so that one multiplies while
 * the other exponentiates.
 *
 * The work is a list of pieces (rows, tile range) that every thread derives alone from the arguments. Block
 * attention cuts the tiles of all (sequence, KV head, 256 rows) units, laid end to end, into equal shares, one a
 * cluster; a share's first and last unit may be shared with a neighbour and then go to the workspace as partial
 * states. Prefill deals whole row tiles, longest first, in snake order.
 */
#ifndef MB_CUDA_FLASH_SM90_CUH
#define MB_CUDA_FLASH_SM90_CUH

#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/key_list.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace mb_cuda {

constexpr int FLASH_D = 128;
constexpr int FLASH_KEYS = 128;       /* keys of a tile */
constexpr int FLASH_ROWS = 128;       /* query rows of a block */
constexpr int FLASH_STAGES = 3;
constexpr int FLASH_THREADS = 384;
constexpr int FLASH_UNITS = 384;      /* most units of one launch (their tile counts live in shared memory) */
constexpr uint32_t FLASH_TILE = FLASH_KEYS * FLASH_D * 2;   /* bytes */
constexpr uint32_t FLASH_PANEL = FLASH_KEYS * 128;          /* bytes of 64 channels of a key tile */
constexpr uint32_t FLASH_Q_GROUP = 64 * FLASH_D * 2;        /* bytes of a warpgroup's queries */

struct FlashShared {
    unsigned char q[2 * FLASH_Q_GROUP];
    unsigned char k[FLASH_STAGES * FLASH_TILE];
    unsigned char v[FLASH_STAGES * FLASH_TILE];
    uint64_t k_full[FLASH_STAGES], k_empty[FLASH_STAGES], v_full[FLASH_STAGES], v_empty[FLASH_STAGES];
    int tile_end[FLASH_UNITS + 1];    /* tiles of units 0 .. u, running */
    int zero;                         /* see flash_emit */
};

constexpr size_t FLASH_SHARED_BYTES = sizeof(FlashShared) + 1024;   /* room to align by hand */

enum FlashMode { FLASH_BLOCK = 0, FLASH_BLOCK_TILES = 1, FLASH_PREFILL = 2 };

/* Rows and tiles that a cluster works on without a break. */
struct Piece {
    int b, h, query_head;   /* query_head: prefill only */
    int row0;               /* first row of the cluster's 128 or 256 */
    int first, end;         /* keys: slot of tile 0, and one past the last key of the unit */
    int prefix;
    int tile0, tile1;
    int slot;               /* of the partial states, or -1: these are all the tiles, write the result */
};

/* Row groups of a unit, and the share of the running tile count that cluster c owns. */
__host__ __device__ inline int flash_groups(int packed, int pair)
{
    return (packed + FLASH_ROWS * pair - 1) / (FLASH_ROWS * pair);
}
__host__ __device__ inline int flash_share(int tiles, int cluster, int clusters)
{
    int each = tiles / clusters, more = tiles - each * clusters;   /* the first `more` shares have one tile more */
    return cluster * each + (cluster < more ? cluster : more);
}
/* The cluster that owns a tile. */
__host__ __device__ inline int flash_owner(int tiles, int tile, int clusters)
{
    int each = tiles / clusters, more = tiles - each * clusters, longer = more * (each + 1);
    return tile < longer ? tile / (each + 1) : more + (tile - longer) / each;
}

/* Tiles of unit u = (sequence, KV head, row group); 0 where a head is inactive or has no keys. */
__device__ __forceinline__ int flash_unit_tiles(const Problem &p, int u, int groups)
{
    int head = u / groups, b = head / p.kv_heads, h = head % p.kv_heads;
    if (!is_active(p, b, h))
        return 0;
    KeyRange range = key_range(p, b);
    return (range.end - range.begin + FLASH_KEYS - 1) / FLASH_KEYS;
}

/* The list of pieces of one cluster. Every thread walks its own copy. */
template <FlashMode MODE, int PAIR> struct Pieces {
    int cluster, clusters, groups, units;
    int position, stop, unit;   /* block attention: next tile of the running count, end of the share */
    int item, items;            /* prefill: round, number of row tiles * query heads */

    __device__ __forceinline__ void begin(const Problem &p, const FlashShared &shared)
    {
        cluster = (int)blockIdx.x / PAIR;
        clusters = (int)gridDim.x / PAIR;
        if (MODE == FLASH_PREFILL) {
            item = 0;
            items = flash_groups(p.prefill_rows, PAIR) * p.query_heads;
        } else {
            groups = flash_groups(p.packed, PAIR);
            units = p.batch * p.kv_heads * groups;
            int tiles = shared.tile_end[units];
            position = flash_share(tiles, cluster, clusters);
            stop = flash_share(tiles, cluster + 1, clusters);
            unit = 0;
        }
    }

    __device__ __forceinline__ bool next(const Problem &p, const FlashShared &shared, Piece &piece)
    {
        if (MODE == FLASH_PREFILL) {
            int index = item * clusters + (item & 1 ? clusters - 1 - cluster : cluster);
            item++;
            if (index >= items)
                return false;
            int tile = items / p.query_heads - 1 - index / p.query_heads;   /* longest first */
            piece.query_head = index % p.query_heads;
            piece.b = p.sequence;
            piece.h = piece.query_head / p.group;
            piece.row0 = tile * FLASH_ROWS * PAIR;
            int last = piece.row0 + FLASH_ROWS * PAIR;
            last = last < p.prefill_rows ? last : p.prefill_rows;
            piece.first = 0;
            piece.end = (int)p.first + p.prefill_rows;
            piece.prefix = 0;
            piece.tile0 = 0;
            piece.tile1 = (prefill_limit(p, last - 1) + FLASH_KEYS - 1) / FLASH_KEYS;
            piece.slot = -1;
            return true;
        }
        if (position >= stop)
            return false;
        while (shared.tile_end[unit + 1] <= position)
            unit++;
        int unit_first = shared.tile_end[unit], unit_end = shared.tile_end[unit + 1];
        int head = unit / groups;
        piece.b = head / p.kv_heads;
        piece.h = head % p.kv_heads;
        piece.query_head = 0;
        piece.row0 = (unit % groups) * FLASH_ROWS * PAIR;
        KeyRange range = key_range(p, piece.b);
        piece.first = range.begin;
        piece.end = range.end;
        piece.prefix = range.prefix;
        piece.tile0 = position - unit_first;
        piece.tile1 = (stop < unit_end ? stop : unit_end) - unit_first;
        bool whole = piece.tile0 == 0 && stop >= unit_end;
        int share = flash_share(shared.tile_end[units], cluster, clusters);
        piece.slot = whole ? -1 : 2 * cluster + (unit_first > share ? 1 : 0);
        position = unit_first + piece.tile1;
        return true;
    }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* A warpgroup's share of one tile, in registers. */
struct FlashState {
    float o[64];          /* 64 rows x 128 channels */
    float top[2], sum[2]; /* of rows lane / 4 and + 8; the sum is this thread's part until the end */
};

/* Sums of exponentials of one tile by row and 64 keys, kept until the tensor cores are busy again. */
struct TileSums {
    float sum[2][2];    /* [row lane / 4, + 8][keys 0..63, 64..127], this thread's part */
    float shift[2];     /* base-2 exponent that the sums are relative to */
    int first;          /* cache slot of the tile's first key */
};

/* Softmax of one tile's logits in place; returns the factors for what was accumulated before. */
template <FlashMode MODE>
__device__ __forceinline__ void flash_softmax(const Problem &p, const Piece &piece, float (&s)[64],
                                              FlashState &state, float (&factor)[2], TileSums &sums, int tile,
                                              const int (&limit)[2])
{
    int lane = (int)threadIdx.x & 31;
    int first = piece.first + tile * FLASH_KEYS;
    bool cut = first + FLASH_KEYS > (MODE == FLASH_PREFILL ? limit[0] : piece.end);   /* limit[0] <= limit[1] */
    if (MODE == FLASH_PREFILL)
        cut = __any_sync(0xffffffffu, cut);
    if (cut)
#pragma unroll
        for (int i = 0; i < 64; i++) {
            int key = first + (i / 4) * 8 + (lane & 3) * 2 + (i & 1);
            int end = MODE == FLASH_PREFILL ? limit[(i >> 1) & 1] : piece.end;
            s[i] = key < end ? s[i] : -INFINITY;
        }
    sums.first = first;
    float top[2] = {fmaxf(s[0], s[1]), fmaxf(s[2], s[3])};
#pragma unroll
    for (int n = 1; n < 16; n++)
#pragma unroll
        for (int r = 0; r < 2; r++)
            top[r] = fmaxf(top[r], fmaxf(s[4 * n + 2 * r], s[4 * n + 2 * r + 1]));
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(state.top[r], quad_max(top[r]));
        sums.shift[r] = top[r] == -INFINITY ? 0.0f : top[r] * p.scale_log2;
        factor[r] = fast_exp2(state.top[r] * p.scale_log2 - sums.shift[r]);
        state.top[r] = top[r];
        sums.sum[r][0] = sums.sum[r][1] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < 16; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float &x = s[4 * n + i];
            x = fast_exp2(fmaf(x, p.scale_log2, -sums.shift[i / 2]));
            sums.sum[i / 2][n / 8] += x;
        }
#pragma unroll
    for (int r = 0; r < 2; r++)
        state.sum[r] = state.sum[r] * factor[r] + (sums.sum[r][0] + sums.sum[r][1]);
    if (MODE == FLASH_BLOCK_TILES && first + FLASH_KEYS > piece.prefix) {   /* leave the block's keys out */
        sums.sum[0][0] = sums.sum[0][1] = sums.sum[1][0] = sums.sum[1][1] = 0.0f;
#pragma unroll
        for (int i = 0; i < 64; i++)
            if (first + (i / 4) * 8 + (lane & 3) * 2 + (i & 1) < piece.prefix)
                sums.sum[(i >> 1) & 1][i / 32] += s[i];
    }
}

/* Where this thread's row sums of a piece go: of the four lanes that share two rows each writes one (row, half of
 * the tile's keys), as a base-2 logarithm, to tile_part [unit][64-key tile][packed row]. */
struct TilePlace {
    float *part;
    int end;      /* first keys at or past this slot are not written */
};

__device__ __forceinline__ TilePlace flash_tile_place(const Problem &p, const Piece &piece, int row)
{
    int lane = (int)threadIdx.x & 31, half = (lane >> 1) & 1, tiles = (p.max_prefix + 63) / 64;
    TilePlace place;
    row += 8 * (lane & 1);
    place.part = p.tile_part + ((int64_t)(piece.b * p.kv_heads + piece.h) * tiles + half) * p.packed + row;
    place.end = (piece.prefix < tiles * 64 ? piece.prefix : tiles * 64) - 64 * half;
    place.end = row < p.packed ? place.end : 0;
    return place;
}

/* The lane number is taken through shared memory, as plus 0: the assembler otherwise moves all this in front of
 * the products that it is to run behind. */
__device__ __forceinline__ void flash_emit(const Problem &p, const TilePlace &place, const TileSums &sums,
                                           const int *zero)
{
    int lane = ((int)threadIdx.x & 31) + *(volatile const int *)zero;
    bool half = lane & 2, r = lane & 1;
    float low = half ? sums.sum[0][1] : sums.sum[0][0], high = half ? sums.sum[1][1] : sums.sum[1][0];
    low += __shfl_xor_sync(0xffffffffu, half ? sums.sum[0][0] : sums.sum[0][1], 2);
    high += __shfl_xor_sync(0xffffffffu, half ? sums.sum[1][0] : sums.sum[1][1], 2);
    float sum = (r ? high : low) + __shfl_xor_sync(0xffffffffu, r ? low : high, 1), log;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(log) : "f"(sum));
    if (sums.first < place.end)
        place.part[(int64_t)(sums.first / 64) * p.packed] = (r ? sums.shift[1] : sums.shift[0]) + log;
}

/* Zeroes the values of keys at and beyond the unit's end in a tile: their probability is 0, and 0 * NaN is not. */
__device__ __forceinline__ void flash_clear_tail(unsigned char *tile, int keep, int thread)
{
    for (int i = thread; i < (FLASH_KEYS - keep) * 16; i += 128) {
        int row = keep + i / 16, chunk = i % 16;
        *(uint4 *)(tile + (chunk / 8) * FLASH_PANEL + row * 128 + (chunk % 8) * 16) = make_uint4(0, 0, 0, 0);
    }
    proxy_fence();
}

/* Queries of one warpgroup to shared memory, as two panels of 64 rows; chunks swizzled against bank conflicts. */
template <FlashMode MODE>
__device__ __forceinline__ void flash_load_q(const Problem &p, const Piece &piece, unsigned char *q, int row0,
                                             int thread)
{
    int rows = MODE == FLASH_PREFILL ? p.prefill_rows : p.packed;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int row = thread / 16 + 8 * i, chunk = thread % 16;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (row0 + row < rows) {
            int64_t state = row_state<MODE == FLASH_PREFILL ? PREFILL : DENSE>(p, piece.b, piece.h,
                                                                               piece.query_head, row0 + row);
            x = *(const uint4 *)((const __nv_bfloat16 *)p.q + state * FLASH_D + chunk * 8);
        }
        *(uint4 *)(q + (chunk / 8) * (64 * 128) + row * 128 + (((chunk % 8) ^ (row & 7)) << 4)) = x;
    }
}

template <FlashMode MODE, int PAIR>
__device__ __forceinline__ void flash_store(const Problem &p, const Piece &piece, FlashState &state, int row0)
{
    int lane = (int)threadIdx.x & 31, rows = MODE == FLASH_PREFILL ? p.prefill_rows : p.packed;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = row0 + 8 * r;
        float sum = quad_sum(state.sum[r]);
        float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
        float lse = sum > 0.0f ? (state.top[r] * p.scale_log2 + log2f(sum)) * LN2 : -INFINITY;
        if (row >= rows)
            continue;
        if (MODE != FLASH_PREFILL && piece.slot >= 0) {
            int64_t slot = (int64_t)piece.slot * FLASH_ROWS * PAIR + row - piece.row0;
            float *out = p.part_out + slot * FLASH_D + (lane & 3) * 2;
#pragma unroll
            for (int n = 0; n < 16; n++)
                *(float2 *)(out + 8 * n) = make_float2(state.o[4 * n + 2 * r] * inverse,
                                                       state.o[4 * n + 2 * r + 1] * inverse);
            if ((lane & 3) == 0)
                p.part_lse[slot] = lse;
            continue;
        }
        int64_t index = row_state<MODE == FLASH_PREFILL ? PREFILL : DENSE>(p, piece.b, piece.h,
                                                                           piece.query_head, row);
        if (p.out) {
            __nv_bfloat16 *out = (__nv_bfloat16 *)p.out + index * FLASH_D + (lane & 3) * 2;
#pragma unroll
            for (int n = 0; n < 16; n++)
                *(uint32_t *)(out + 8 * n) = pack_bf16(state.o[4 * n + 2 * r] * inverse,
                                                       state.o[4 * n + 2 * r + 1] * inverse);
        }
        if (MODE != FLASH_PREFILL && p.lse && (lane & 3) == 0)
            p.lse[index] = lse;
    }
}

/* This warp's 16 rows of the queries as left operands, eight of 16 x 16: from here on the tensor cores read only
 * keys and values from shared memory. */
__device__ __forceinline__ void flash_fetch_q(uint32_t (&q)[32], uint32_t q_tile, int thread)
{
    int row = (thread >> 5) * 16 + (thread & 15), side = (thread >> 4) & 1;
#pragma unroll
    for (int c = 0; c < FLASH_D / 16; c++) {
        uint32_t x[4];
        load_matrix4(x, q_tile + (c / 4) * (64 * 128) + row * 128 + ((((c % 4) * 2 + side) ^ (row & 7)) << 4));
#pragma unroll
        for (int i = 0; i < 4; i++)
            q[4 * c + i] = x[i];
    }
}

__device__ __forceinline__ void flash_logits(float (&s)[64], const uint32_t (&q)[32], uint32_t k)
{
#pragma unroll
    for (int c = 0; c < FLASH_D / 16; c++)
        wgmma_registers<0>(s, q[4 * c], q[4 * c + 1], q[4 * c + 2], q[4 * c + 3],
                           rows_descriptor(k + (c / 4) * FLASH_PANEL + (c % 4) * 32), c != 0);
}

__device__ __forceinline__ void flash_output(float (&o)[64], const uint32_t (&w)[32], uint32_t v)
{
#pragma unroll
    for (int c = 0; c < FLASH_KEYS / 16; c++)
        wgmma_registers<1>(o, w[4 * c], w[4 * c + 1], w[4 * c + 2], w[4 * c + 3],
                           columns_descriptor(v + c * 2048, FLASH_PANEL), true);
}

/* Probabilities to the left operand of the output product. */
__device__ __forceinline__ void flash_pack(const float (&s)[64], uint32_t (&w)[32])
{
#pragma unroll
    for (int i = 0; i < 32; i++)
        w[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

template <int PAIR> __device__ __forceinline__ void flash_release(uint64_t *barrier)
{
    int lane = (int)threadIdx.x & 31;
    if (PAIR == 1) {
        if (lane == 0)
            barrier_arrive(shared_address(barrier));
    } else if (lane < PAIR) {
        barrier_arrive_in(shared_address(barrier), (uint32_t)lane);
    }
}

/* The producer thread: tiles of every piece, in order. */
template <FlashMode MODE, int PAIR>
__device__ __forceinline__ void flash_produce(const Problem &p, FlashShared &shared, const CUtensorMap *k_map,
                                              const CUtensorMap *v_map)
{
    Pieces<MODE, PAIR> pieces;
    Piece piece = {};
    Ring<FLASH_STAGES> ring;
    int rank = PAIR == 1 ? 0 : (int)cluster_rank();
    auto fetch = [&](const CUtensorMap *map, unsigned char *tile, uint64_t *full, uint64_t *empty, int slot) {
        uint32_t barrier = shared_address(full + ring.stage);
        uint32_t place = shared_address(tile) + (uint32_t)ring.stage * FLASH_TILE;
        barrier_wait(shared_address(empty + ring.stage), ring.phase ^ 1);
        barrier_expect(barrier, FLASH_TILE);
        int head = piece.b * p.kv_heads + piece.h;
#pragma unroll
        for (int panel = 0; panel < 2; panel++) {
            if (PAIR == 2) {
                copy_box_both(place + panel * FLASH_PANEL + rank * 64 * 128, map, barrier, panel * 64,
                              slot + rank * 64, head);
            } else {
                copy_box(place + panel * FLASH_PANEL, map, barrier, panel * 64, slot, head);
                copy_box(place + panel * FLASH_PANEL + 64 * 128, map, barrier, panel * 64, slot + 64, head);
            }
        }
    };
    pieces.begin(p, shared);
    while (pieces.next(p, shared, piece))
#pragma unroll 1
        for (int tile = piece.tile0; tile < piece.tile1; tile++) {
            fetch(k_map, shared.k, shared.k_full, shared.k_empty, piece.first + tile * FLASH_KEYS);
            fetch(v_map, shared.v, shared.v_full, shared.v_empty, piece.first + tile * FLASH_KEYS);
            ring.next();
        }
}

/* One of the two consumer warpgroups. */
template <FlashMode MODE, int PAIR>
__device__ __forceinline__ void flash_consume(const Problem &p, FlashShared &shared, int group)
{
    int thread = (int)threadIdx.x & 127, lane = thread & 31;
    int rows = MODE == FLASH_PREFILL ? p.prefill_rows : p.packed;
    int rank = PAIR == 1 ? 0 : (int)cluster_rank();
    unsigned char *q_tile = shared.q + group * FLASH_Q_GROUP;
    uint32_t k = shared_address(shared.k), v = shared_address(shared.v);
    Pieces<MODE, PAIR> pieces;
    Piece piece = {};
    Ring<FLASH_STAGES> ring;      /* of the K tile that is next */
    FlashState state;
    if (group == 1)
        named_arrive(4, 256);     /* the first warpgroup may multiply first */
    pieces.begin(p, shared);
    while (pieces.next(p, shared, piece)) {
        int row0 = piece.row0 + rank * FLASH_ROWS + group * 64;
        bool alone = piece.row0 + rank * FLASH_ROWS + 64 >= rows;   /* the second warpgroup has no rows */
        if (row0 >= rows) {
            /* No rows here: pass the tiles on. */
#pragma unroll 1
            for (int tile = piece.tile0; tile < piece.tile1; tile++) {
                barrier_wait(shared_address(shared.k_full + ring.stage), ring.phase);
                flash_release<PAIR>(shared.k_empty + ring.stage);
                barrier_wait(shared_address(shared.v_full + ring.stage), ring.phase);
                flash_release<PAIR>(shared.v_empty + ring.stage);
                ring.next();
            }
            continue;
        }
        int row = row0 + (thread >> 5) * 16 + lane / 4;
        int limit[2] = {0, 0};
        if (MODE == FLASH_PREFILL)
            for (int i = 0; i < 2; i++)
                limit[i] = prefill_limit(p, row + 8 * i < rows ? row + 8 * i : rows - 1);
        named_sync(2 + group, 128);   /* everyone has fetched the last piece's queries */
        flash_load_q<MODE>(p, piece, q_tile, row0, thread);
        named_sync(2 + group, 128);
#pragma unroll
        for (int i = 0; i < 64; i++)
            state.o[i] = 0.0f;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            state.top[r] = -INFINITY;
            state.sum[r] = 0.0f;
        }
        uint32_t q[32];
        flash_fetch_q(q, shared_address(q_tile), thread);
        float s[64], factor[2];
        uint32_t w[32];
        TileSums sums = {};
        TilePlace place = {};
        if (MODE == FLASH_BLOCK_TILES)
            place = flash_tile_place(p, piece, row);
        barrier_wait(shared_address(shared.k_full + ring.stage), ring.phase);
        wgmma_fence();
        flash_logits(s, q, k + (uint32_t)ring.stage * FLASH_TILE);
        wgmma_commit();
        wgmma_wait<0>();
        hold(s);
        flash_release<PAIR>(shared.k_empty + ring.stage);
        flash_softmax<MODE>(p, piece, s, state, factor, sums, piece.tile0, limit);
        flash_pack(s, w);
        Ring<FLASH_STAGES> last = ring;   /* of the V tile that is next */
        ring.next();
#pragma unroll 1
        for (int tile = piece.tile0 + 1; tile < piece.tile1; tile++) {
            barrier_wait(shared_address(shared.k_full + ring.stage), ring.phase);
            barrier_wait(shared_address(shared.v_full + last.stage), last.phase);   /* was asked for earlier */
            if (!alone)
                named_sync(4 + group, 256);
            wgmma_fence();
            flash_logits(s, q, k + (uint32_t)ring.stage * FLASH_TILE);
            wgmma_commit();
            flash_output(state.o, w, v + (uint32_t)last.stage * FLASH_TILE);
            wgmma_commit();
            if (!alone)
                named_arrive(5 - group, 256);
            if (MODE == FLASH_BLOCK_TILES)
                flash_emit(p, place, sums, &shared.zero);
            wgmma_wait<1>();
            hold(s);
            flash_release<PAIR>(shared.k_empty + ring.stage);
            flash_softmax<MODE>(p, piece, s, state, factor, sums, tile, limit);
            wgmma_wait<0>();
            hold(state.o);
            flash_release<PAIR>(shared.v_empty + last.stage);
            flash_pack(s, w);
            /* Late in a long context the maximum of no row moves. */
            if (__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f))
#pragma unroll
                for (int i = 0; i < 64; i++)
                    state.o[i] *= factor[(i >> 1) & 1];
            last = ring;
            ring.next();
        }
        barrier_wait(shared_address(shared.v_full + last.stage), last.phase);
        int keep = piece.end - (piece.first + (piece.tile1 - 1) * FLASH_KEYS);
        if (keep < FLASH_KEYS) {
            flash_clear_tail(shared.v + (uint32_t)last.stage * FLASH_TILE, keep, thread);
            named_sync(2 + group, 128);
        }
        wgmma_fence();
        flash_output(state.o, w, v + (uint32_t)last.stage * FLASH_TILE);
        wgmma_commit();
        if (MODE == FLASH_BLOCK_TILES)
            flash_emit(p, place, sums, &shared.zero);
        wgmma_wait<0>();
        hold(state.o);
        flash_release<PAIR>(shared.v_empty + last.stage);
        flash_store<MODE, PAIR>(p, piece, state, row);
    }
}

#endif /* __CUDA_ARCH_FEAT_SM90_ALL */

/* Grid: clusters * PAIR blocks. Elsewhere than on sm_90a the body is empty; the host never launches it there. */
template <FlashMode MODE, int PAIR>
__global__ void __launch_bounds__(FLASH_THREADS, 1)
    flash_kernel(const __grid_constant__ Problem p, const __grid_constant__ CUtensorMap k_map,
                 const __grid_constant__ CUtensorMap v_map)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char dynamic[];
    /* The same offset in both blocks of a pair, because a multicast writes to equal addresses. */
    FlashShared &shared = *(FlashShared *)(dynamic + ((1024 - (shared_address(dynamic) & 1023)) & 1023));
    int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0);   /* known to be the same for a warp */
    if (threadIdx.x == 0) {
        for (int i = 0; i < FLASH_STAGES; i++) {
            barrier_init(shared_address(shared.k_full + i), 1);
            barrier_init(shared_address(shared.v_full + i), 1);
            barrier_init(shared_address(shared.k_empty + i), 8 * PAIR);   /* one arrival a consumer warp */
            barrier_init(shared_address(shared.v_empty + i), 8 * PAIR);
        }
        barrier_init_fence();
        prefetch_map(&k_map);
        prefetch_map(&v_map);
    }
    if (MODE != FLASH_PREFILL && threadIdx.x < 32) {
        int groups = flash_groups(p.packed, PAIR), units = p.batch * p.kv_heads * groups, total = 0;
        int lane = (int)threadIdx.x;
        for (int first = 0; first < units; first += 32) {
            int x = first + lane < units ? flash_unit_tiles(p, first + lane, groups) : 0;
            for (int step = 1; step < 32; step *= 2) {
                int other = __shfl_up_sync(0xffffffffu, x, step);
                x += lane >= step ? other : 0;
            }
            if (first + lane < units)
                shared.tile_end[first + lane + 1] = total + x;
            total += __shfl_sync(0xffffffffu, x, 31);
        }
        if (lane == 0)
            shared.tile_end[0] = shared.zero = 0;
    }
    __syncthreads();
    if (PAIR == 2)
        cluster_sync();
    if (group == 0) {
        registers_shrink<24>();
        if (threadIdx.x == 0)
            flash_produce<MODE, PAIR>(p, shared, &k_map, &v_map);
    } else {
        registers_grow<240>();
        flash_consume<MODE, PAIR>(p, shared, group - 1);
    }
    __syncwarp();
    if (PAIR == 2)
        cluster_sync();   /* the other block may still multicast into, and signal, this one's shared memory */
#endif
}

/* ---- host ---- */

/* Tensor map of [heads][capacity][128] bf16, boxes of 64 slots x 64 channels. In attend_sm90.cu. */
int flash_map(const mb_cuda_chip *chip, CUtensorMap *map, const void *base, const Problem &p, int heads, mb_error *err);
typedef void (*FlashKernel)(const Problem, const CUtensorMap, const CUtensorMap);
int flash_launch(FlashKernel kernel, const Problem &p, const CUtensorMap &k_map, const CUtensorMap &v_map,
                 int pair, int clusters, cudaStream_t stream, mb_error *err);

} /* namespace mb_cuda */

#endif
