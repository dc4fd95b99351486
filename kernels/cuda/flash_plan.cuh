/*
 * flash_plan.cuh - who works on what in the kernels of flash_sm90.cuh: the shapes that they are compiled for, what
 * a block keeps in shared memory, and the list of pieces (rows, tile range) that every thread derives alone from
 * the arguments.
 *
 * Block attention cuts the tiles of all (sequence, KV head, row group) units, laid end to end, into equal shares,
 * one a cluster; a share's first and last unit may be shared with a neighbour and then go to the workspace as
 * partial states. Prefill deals items (rows of one query head), longest first, in snake order, as long as they
 * fill whole rounds of the grid; a second launch spreads each 64 rows of the rest over the warpgroups of a block.
 */
#ifndef MB_CUDA_FLASH_PLAN_CUH
#define MB_CUDA_FLASH_PLAN_CUH

#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/depend.cuh"
#include "kernels/cuda/key_list.cuh"
#include "kernels/cuda/tma.cuh"

namespace mb_cuda
{

constexpr int FLASH_D = 128;     /* of mass_sm90.cu and votes_sm90.cu */
constexpr int FLASH_UNITS = 384; /* most units of one launch (their tile counts live in shared memory) */
constexpr size_t FLASH_SHARED_MOST = 227 * 1024;

/* FLASH_PREFILL takes as many items (rows of one query head) as fill whole rounds of the grid, FLASH_SPREAD the
 * rest: 64 rows a piece, whose tiles the warpgroups of a block take in turn. */
enum FlashMode { FLASH_BLOCK = 0, FLASH_BLOCK_TILES = 1, FLASH_PREFILL = 2, FLASH_SPREAD = 3 };
__host__ __device__ constexpr bool is_prefill(FlashMode mode)
{
    return mode >= FLASH_PREFILL;
}

/* What a kernel is compiled for. KEYS of a tile, 64 rows a consumer warpgroup (GROUPS of them), PAIR blocks a
 * cluster. HELD: the queries stay in registers; otherwise the tensor cores read them from shared memory. */
template <FlashMode MODE_, int D_, int KEYS_, int GROUPS_, int PAIR_, bool HELD_> struct FlashShape {
    static constexpr FlashMode MODE = MODE_;
    static constexpr int D = D_, KEYS = KEYS_, GROUPS = GROUPS_, PAIR = PAIR_;
    static constexpr bool HELD = HELD_;
    /* Two warpgroups take turns at the tensor cores and have the logits of a tile multiplied in front of the
     * output of the tile before, to do their exponentials beside the latter; three hide them behind one another.
     */
    static constexpr bool AHEAD = GROUPS == 2;
    static constexpr int ROWS = 64 * GROUPS; /* of a block */
    static constexpr int THREADS = 128 * (GROUPS + 1);
    static constexpr int PANELS = (D + 63) / 64; /* of 64 channels; the last may be padded */
    static constexpr uint32_t PANEL = KEYS * 128, TILE = PANELS * PANEL;
    static constexpr uint32_t Q_GROUP = PANELS * 64 * 128; /* bytes of a warpgroup's queries */
    static constexpr int FIT = (int)((FLASH_SHARED_MOST - 3072 - GROUPS * Q_GROUP) / (2 * TILE));
    static constexpr int ENTRIES = FIT < 4 ? FIT : 4;
    /* setmaxnreg moves registers within what the launch got. */
    static constexpr int REGISTERS = GROUPS == 2 ? 240 : 160, LEFT = GROUPS == 2 ? 24 : 32;
    static_assert(GROUPS == 2 || GROUPS == 3, "one of the two ways above");
    static_assert(ENTRIES >= 2, "one is filled while another is read");
    static_assert(MODE != FLASH_BLOCK_TILES || KEYS == 128, "sums are by 64 keys");
};

/* Entry i of the ring holds the keys of tile i and the values of tile i - 1, which are multiplied together; the
 * first of a piece has no values and the one behind the last no keys. */
template <class S> struct FlashShared {
    unsigned char q[S::GROUPS * S::Q_GROUP];
    unsigned char entry[S::ENTRIES * 2 * S::TILE];
    uint64_t full[S::ENTRIES], empty[S::ENTRIES];
    uint64_t asked;                /* the first queries have been asked for */
    int tile_end[FLASH_UNITS + 1]; /* tiles of units 0 .. u, running */
    int zero;                      /* see flash_emit */
};

template <class S> constexpr size_t flash_shared_bytes = sizeof(FlashShared<S>) + 1024; /* aligned by hand */

/* Rows and tiles that a cluster works on without a break. */
struct Piece {
    int b, h, query_head; /* query_head: prefill only */
    int row0;             /* first row of the cluster's 128 or 256 */
    int first, end;       /* keys: slot of tile 0, and one past the last key of the unit */
    int prefix;
    int tile0, tile1;
    int slot; /* of the partial states, or -1: these are all the tiles, write the result */
};

/* Beginning a unit takes a cluster about as long as this many tiles: queries, first tiles, the state at its end.
 * Units count for so much more when they are cut into shares; a share may end within a beginning, which then has
 * no tiles. */
constexpr int FLASH_BEGIN = 3;
constexpr int FLASH_WHOLE = -2; /* see flash_list_parts */

/* Row groups of a unit where a cluster takes `rows`, and the share of the running tile count that cluster c owns.
 */
__host__ __device__ inline int flash_groups(int packed, int rows)
{
    return (packed + rows - 1) / rows;
}
__host__ __device__ inline int flash_share(int tiles, int cluster, int clusters)
{
    int each = tiles / clusters, more = tiles - each * clusters; /* the first `more` shares have one tile more */
    return cluster * each + (cluster < more ? cluster : more);
}
/* The cluster that owns a tile. */
__host__ __device__ inline int flash_owner(int tiles, int tile, int clusters)
{
    int each = tiles / clusters, more = tiles - each * clusters, longer = more * (each + 1);
    return tile < longer ? tile / (each + 1) : more + (tile - longer) / each;
}

/* Tiles of unit u = (sequence, KV head, row group), and FLASH_BEGIN; 0 where a head is inactive or has no keys. */
__device__ __forceinline__ int flash_unit_tiles(const Problem &p, int u, int groups, int keys)
{
    int head = u / groups, b = head / p.kv_heads, h = head % p.kv_heads;
    if (!is_active(p, b, h))
        return 0;
    KeyRange range = key_range(p, b);
    int tiles = (range.end - range.begin + keys - 1) / keys;
    return tiles > 0 ? tiles + FLASH_BEGIN : 0;
}

/* The list of pieces of one cluster. Every thread walks its own copy. */
template <class S> struct Pieces {
    static constexpr int ROWS = S::ROWS * S::PAIR;
    int cluster, clusters, groups, units;
    int position, stop, unit; /* block attention: next tile of the running count, end of the share */
    int item, items;          /* prefill: round, number of row tiles * query heads */

    __device__ __forceinline__ void begin(const Problem &p, const FlashShared<S> &shared)
    {
        cluster = (int)blockIdx.x / S::PAIR;
        clusters = (int)gridDim.x / S::PAIR;
        if (is_prefill(S::MODE)) {
            item = 0;
            items = flash_groups(p.prefill_rows, ROWS) * p.query_heads;
        } else {
            groups = flash_groups(p.packed, ROWS);
            units = p.batch * p.kv_heads * groups;
            int tiles = shared.tile_end[units];
            position = flash_share(tiles, cluster, clusters);
            stop = flash_share(tiles, cluster + 1, clusters);
            unit = 0;
        }
    }

    __device__ __forceinline__ bool next(const Problem &p, const FlashShared<S> &shared, Piece &piece)
    {
        return is_prefill(S::MODE) ? next_item(p, piece) : next_of_share(p, shared, piece);
    }

    __device__ __forceinline__ bool next_item(const Problem &p, Piece &piece)
    {
        int index = item * clusters + (item & 1 ? clusters - 1 - cluster : cluster), part = 0;
        item++;
        if (S::MODE == FLASH_SPREAD) {
            part = index % S::GROUPS;
            index = p.prefill_whole + index / S::GROUPS;
        }
        if (index >= (S::MODE == FLASH_SPREAD ? items : p.prefill_whole))
            return false;
        int tile = items / p.query_heads - 1 - index / p.query_heads; /* longest first */
        piece.query_head = index % p.query_heads;
        piece.b = p.sequence;
        piece.h = piece.query_head / p.group;
        piece.row0 = tile * ROWS + part * 64;
        int last = piece.row0 + (S::MODE == FLASH_SPREAD ? 64 : ROWS);
        last = last < p.prefill_rows ? last : p.prefill_rows;
        piece.first = 0;
        piece.end = (int)p.first + p.prefill_rows;
        piece.prefix = 0;
        piece.tile0 = 0;
        piece.tile1 = piece.row0 < last ? (prefill_limit(p, last - 1) + S::KEYS - 1) / S::KEYS : 0;
        piece.slot = -1;
        return true;
    }

    __device__ __forceinline__ bool next_of_share(const Problem &p, const FlashShared<S> &shared, Piece &piece)
    {
        do {
            if (position >= stop)
                return false;
            while (shared.tile_end[unit + 1] <= position)
                unit++;
            int unit_first = shared.tile_end[unit], unit_end = shared.tile_end[unit + 1];
            int from = position - unit_first - FLASH_BEGIN, to = (stop < unit_end ? stop : unit_end) - unit_first;
            position = unit_first + to;
            piece.tile0 = from > 0 ? from : 0;
            piece.tile1 = to - FLASH_BEGIN;
        } while (piece.tile1 <= piece.tile0);
        int head = unit / groups;
        piece.b = head / p.kv_heads;
        piece.h = head % p.kv_heads;
        piece.query_head = 0;
        piece.row0 = (unit % groups) * ROWS;
        KeyRange range = key_range(p, piece.b);
        piece.first = range.begin;
        piece.end = range.end;
        piece.prefix = range.prefix;
        bool whole = piece.tile0 == 0 && position == shared.tile_end[unit + 1];
        int share = flash_share(shared.tile_end[units], cluster, clusters);
        piece.slot = whole ? -1 : 2 * cluster + (shared.tile_end[unit] + FLASH_BEGIN > share ? 1 : 0);
        return true;
    }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Running tile counts of the units. One warp. */
template <class S> __device__ __forceinline__ void flash_count_tiles(const Problem &p, FlashShared<S> &shared)
{
    int groups = flash_groups(p.packed, S::ROWS * S::PAIR), units = p.batch * p.kv_heads * groups, total = 0;
    int lane = (int)threadIdx.x & 31;
    for (int first = 0; first < units; first += 32) {
        int x = first + lane < units ? flash_unit_tiles(p, first + lane, groups, S::KEYS) : 0;
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

/* For the merge: slot of every unit's first part, and the cluster of its last. Units of one part are FLASH_WHOLE,
 * units without keys have no parts: {0, -1}. The first block's spare warps. */
template <class S> __device__ __forceinline__ void flash_list_parts(const Problem &p, const FlashShared<S> &shared)
{
    int units = p.batch * p.kv_heads * flash_groups(p.packed, S::ROWS * S::PAIR),
        clusters = (int)gridDim.x / S::PAIR;
    int tiles = shared.tile_end[units];
    for (int u = (int)threadIdx.x - 64; u < units; u += 64) {
        int first = shared.tile_end[u] + FLASH_BEGIN, end = shared.tile_end[u + 1];
        int2 parts = make_int2(0, -1);
        if (end > first) {
            int c = flash_owner(tiles, first, clusters);
            parts = make_int2(2 * c + (first > flash_share(tiles, c, clusters) ? 1 : 0),
                              flash_owner(tiles, end - 1, clusters));
            if (parts.y == c)
                parts.y = FLASH_WHOLE;
        }
        p.part_list[u] = parts;
    }
}

#endif

} /* namespace mb_cuda */

#endif
