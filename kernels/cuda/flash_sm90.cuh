/*
 * flash_sm90.cuh - the sm_90a attention kernel behind attend_sm90.cu and prefill_sm90.cu: bf16, head_dim 64 to
 * 256.
 *
 * A block has two or three consumer warpgroups, which hold 64 query rows each, and one producer thread, which
 * fills a ring of tiles by bulk tensor copies. Two blocks may form a pair of twice the rows: each fetches half of
 * a tile and multicasts it, so a key is read once for all of them. Which rows and tiles: flash_plan.cuh;
 * exponentials: flash_softmax.cuh.
 */
#ifndef MB_CUDA_FLASH_SM90_CUH
#define MB_CUDA_FLASH_SM90_CUH

#include "kernels/cuda/flash_softmax.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace mb_cuda
{

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Zeroes the values of keys at and beyond the unit's end in a tile: their probability is 0, and 0 * NaN is not. */
template <class S> __device__ __forceinline__ void flash_clear_tail(unsigned char *tile, int keep, int thread)
{
    for (int i = thread; i < (S::KEYS - keep) * 8 * S::PANELS; i += 128) {
        int row = keep + i / (8 * S::PANELS), chunk = i % (8 * S::PANELS);
        *(uint4 *)(tile + (chunk / 8) * S::PANEL + row * 128 + (chunk % 8) * 16) = make_uint4(0, 0, 0, 0);
    }
    proxy_fence();
}

template <class S>
__device__ __forceinline__ int64_t flash_row_state(const Problem &p, const Piece &piece, int row)
{
    return row_state < is_prefill(S::MODE) ? PREFILL : DENSE > (p, piece.b, piece.h, piece.query_head, row);
}

/* Queries of one warpgroup to shared memory, as panels of 64 rows; chunks swizzled against bank conflicts. */
template <class S>
__device__ __forceinline__ void flash_load_q(const Problem &p, const Piece &piece, uint32_t q, int row0,
                                             int thread)
{
    constexpr int CHUNKS = S::D / 8;
    int rows = is_prefill(S::MODE) ? p.prefill_rows : p.packed;
#pragma unroll
    for (int i = 0; i < CHUNKS / 2; i++) {
        int row = (thread + 128 * i) / CHUNKS, chunk = (thread + 128 * i) % CHUNKS;
        int there = row0 + row < rows ? row0 + row : rows - 1;
        copy_async16(q + (chunk / 8) * (64 * 128) + row * 128 + (((chunk % 8) ^ (row & 7)) << 4),
                     (const __nv_bfloat16 *)p.q + flash_row_state<S>(p, piece, there) * S::D + chunk * 8,
                     row0 + row < rows);
    }
    copy_commit();
}

template <class S>
__device__ __forceinline__ void flash_store(const Problem &p, const Piece &piece, FlashState<S> &state, int row0)
{
    int lane = (int)threadIdx.x & 31, rows = is_prefill(S::MODE) ? p.prefill_rows : p.packed;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = row0 + 8 * r;
        float sum = quad_sum(state.sum[r]);
        float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
        float lse = sum > 0.0f ? (state.shift[r] + log2f(sum)) * LN2 : -INFINITY;
        if (row >= rows)
            continue;
        if (!is_prefill(S::MODE) && piece.slot >= 0) {
            int64_t slot = (int64_t)piece.slot * S::ROWS * S::PAIR + row - piece.row0;
            float *out = p.part_out + slot * S::D + (lane & 3) * 2;
#pragma unroll
            for (int n = 0; n < S::D / 8; n++)
                *(float2 *)(out + 8 * n) =
                    make_float2(state.o[4 * n + 2 * r] * inverse, state.o[4 * n + 2 * r + 1] * inverse);
            if ((lane & 3) == 0)
                p.part_lse[slot] = lse;
            continue;
        }
        int64_t index = flash_row_state<S>(p, piece, row);
        if (p.out) {
            __nv_bfloat16 *out = (__nv_bfloat16 *)p.out + index * S::D + (lane & 3) * 2;
#pragma unroll
            for (int n = 0; n < S::D / 8; n++)
                *(uint32_t *)(out + 8 * n) =
                    pack_bf16(state.o[4 * n + 2 * r] * inverse, state.o[4 * n + 2 * r + 1] * inverse);
        }
        if (!is_prefill(S::MODE) && p.lse && (lane & 3) == 0)
            p.lse[index] = lse;
    }
}

/* This warp's 16 rows of the queries as left operands of 16 x 16: from here on the tensor cores read only keys and
 * values from shared memory. */
template <class S>
__device__ __forceinline__ void flash_fetch_q(uint32_t (&q)[S::HELD ? S::D / 4 : 1], uint32_t q_tile, int thread)
{
    int row = (thread >> 5) * 16 + (thread & 15), side = (thread >> 4) & 1;
    if (S::HELD)
#pragma unroll
        for (int c = 0; c < S::D / 16; c++) {
            uint32_t x[4];
            load_matrix4(x, q_tile + (c / 4) * (64 * 128) + row * 128 + ((((c % 4) * 2 + side) ^ (row & 7)) << 4));
#pragma unroll
            for (int i = 0; i < 4; i++)
                q[4 * c + i] = x[i];
        }
}

template <class S>
__device__ __forceinline__ void flash_logits(float (&s)[S::KEYS / 2], const uint32_t *q, uint64_t q_tile,
                                             uint64_t k)
{
#pragma unroll
    for (int c = 0; c < S::D / 16; c++) {
        uint64_t keys = further(k, (c / 4) * S::PANEL + (c % 4) * 32);
        if constexpr (S::HELD)
            wgmma_registers<S::KEYS, 0>(s, q + 4 * c, keys, c != 0);
        else
            wgmma_shared<S::KEYS>(s, further(q_tile, (c / 4) * (64 * 128) + (c % 4) * 32), keys, c != 0);
    }
}

template <class S>
__device__ __forceinline__ void flash_output(float (&o)[S::D / 2], const uint32_t (&w)[S::KEYS / 4], uint64_t v)
{
#pragma unroll
    for (int c = 0; c < S::KEYS / 16; c++)
        wgmma_registers<S::D, 1>(o, w + 4 * c, further(v, c * 2048), true);
}

template <class S> __device__ __forceinline__ void flash_rescale(float (&o)[S::D / 2], const float (&factor)[2])
{
#pragma unroll
    for (int i = 0; i < S::D / 2; i++)
        o[i] *= factor[(i >> 1) & 1];
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
template <class S>
__device__ __forceinline__ void flash_produce(const Problem &p, FlashShared<S> &shared, const CUtensorMap *k_map,
                                              const CUtensorMap *v_map)
{
    constexpr int PART = S::KEYS / S::PAIR; /* slots of a tile that this block fetches */
    Pieces<S> pieces;
    Piece piece = {};
    Ring<S::ENTRIES> ring;
    int rank = S::PAIR == 1 ? 0 : (int)cluster_rank(), head = 0;
    bool first = true;
    auto fetch = [&](const CUtensorMap *map, uint32_t place, uint32_t barrier, int slot) {
#pragma unroll
        for (int panel = 0; panel < S::PANELS; panel++) {
            uint32_t to = place + panel * S::PANEL + rank * PART * 128;
            if (S::PAIR == 2)
                copy_box_both(to, map, barrier, panel * 64, slot + rank * PART, head);
            else
                copy_box(to, map, barrier, panel * 64, slot, head);
        }
    };
    pieces.begin(p, shared);
    while (pieces.next(p, shared, piece)) {
        head = piece.b * p.kv_heads + piece.h;
        if (piece.tile0 == piece.tile1)
            continue; /* rows that do not exist */
#pragma unroll 1
        for (int tile = piece.tile0; tile <= piece.tile1; tile++) {
            bool keys = tile<piece.tile1, values = tile> piece.tile0;
            uint32_t barrier = shared_address(shared.full + ring.stage);
            uint32_t place = shared_address(shared.entry) + (uint32_t)ring.stage * (2 * S::TILE);
            int slot = piece.first + tile * S::KEYS;
            barrier_wait(shared_address(shared.empty + ring.stage), ring.phase ^ 1);
            barrier_expect(barrier, keys && values ? 2 * S::TILE : S::TILE);
            if (keys)
                fetch(k_map, place, barrier, slot);
            if (values)
                fetch(v_map, place + S::TILE, barrier, slot - S::KEYS);
            if (first) /* else the first queries would stand in line behind a whole ring of keys */
                barrier_wait(shared_address(&shared.asked), 0);
            first = false;
            ring.next();
        }
    }
    /* Stay until everything is released: the other block's warps signal this one's barriers. */
    if (S::PAIR == 2)
        for (int i = 0; i < S::ENTRIES; i++) {
            barrier_wait(shared_address(shared.empty + ring.stage), ring.phase ^ 1);
            ring.next();
        }
}

/* Waits for the entry that is next: where its tiles are. */
template <class S> struct Entry {
    uint64_t k, v; /* descriptors */
    uint32_t keys; /* address */
};
template <class S>
__device__ __forceinline__ Entry<S> flash_take(FlashShared<S> &shared, const Ring<S::ENTRIES> &ring)
{
    uint32_t place = shared_address(shared.entry) + (uint32_t)ring.stage * (2 * S::TILE);
    barrier_wait(shared_address(shared.full + ring.stage), ring.phase);
    return {rows_descriptor(place), columns_descriptor(place + S::TILE, S::PANEL), place};
}

template <class S> __device__ __forceinline__ void flash_give(FlashShared<S> &shared, Ring<S::ENTRIES> &ring)
{
    flash_release<S::PAIR>(shared.empty + ring.stage);
    ring.next();
}

/* The values of a piece's last tile, cleared behind the last key. */
template <class S>
__device__ __forceinline__ void flash_last(const Problem &p, FlashShared<S> &shared, Ring<S::ENTRIES> &ring,
                                           const Piece &piece, FlashState<S> &state,
                                           const uint32_t (&w)[S::KEYS / 4], int group, int thread)
{
    Entry<S> entry = flash_take(shared, ring);
    int keep = piece.end - (piece.first + (piece.tile1 - 1) * S::KEYS);
    if (keep < S::KEYS) {
        flash_clear_tail<S>(shared.entry + (uint32_t)ring.stage * (2 * S::TILE) + S::TILE, keep, thread);
        named_sync(2 + group, 128);
    }
    wgmma_fence();
    flash_output<S>(state.o, w, entry.v);
    wgmma_commit();
    wgmma_wait<0>();
    hold(state.o);
    flash_give(shared, ring);
}

/* Adds to the first warpgroup's state what another one found for the same rows; the states meet in the space of
 * the queries. All consumer warpgroups call this. */
template <class S>
__device__ __forceinline__ void flash_join(FlashShared<S> &shared, FlashState<S> &state, int from, int group,
                                           int thread)
{
    static_assert(sizeof shared.q >= 128 * (S::D / 2 + 4) * sizeof(float), "a warpgroup's state");
    float *place = (float *)shared.q + thread;
    named_sync(8, 128 * S::GROUPS); /* the place is free */
    if (group == from) {
#pragma unroll
        for (int i = 0; i < S::D / 2; i++)
            place[128 * i] = state.o[i];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            place[128 * (S::D / 2 + r)] = state.shift[r];
            place[128 * (S::D / 2 + 2 + r)] = state.sum[r];
        }
    }
    named_sync(8, 128 * S::GROUPS);
    if (group == 0) {
        float mine[2], theirs[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float other = place[128 * (S::D / 2 + r)], shift = fmaxf(state.shift[r], other);
            mine[r] = fast_exp2(state.shift[r] - shift);
            theirs[r] = fast_exp2(other - shift);
            state.shift[r] = shift;
            state.sum[r] = state.sum[r] * mine[r] + place[128 * (S::D / 2 + 2 + r)] * theirs[r];
        }
#pragma unroll
        for (int i = 0; i < S::D / 2; i++)
            state.o[i] = state.o[i] * mine[(i >> 1) & 1] + place[128 * i] * theirs[(i >> 1) & 1];
    }
}

/* One piece of 64 rows whose tiles the warpgroups take in turn. */
template <class S>
__device__ __forceinline__ void flash_spread(const Problem &p, FlashShared<S> &shared, Ring<S::ENTRIES> &ring,
                                             const Piece &piece, FlashState<S> &state, const int (&limit)[2],
                                             int row, int group, int thread)
{
    uint64_t q_tile = rows_descriptor(shared_address(shared.q + group * S::Q_GROUP));
    float s[S::KEYS / 2], factor[2];
    uint32_t w[S::KEYS / 4];
    TileSums sums = {};
    int turn = 0, after = group + 1 < S::GROUPS ? group + 1 : 0;
#pragma unroll 1
    for (int tile = piece.tile0; tile <= piece.tile1; tile++) {
        if (turn == after && tile > piece.tile0) {
            if (tile == piece.tile1) {
                flash_last(p, shared, ring, piece, state, w, group, thread);
                break;
            }
            Entry<S> entry = flash_take(shared, ring);
            wgmma_fence();
            flash_output<S>(state.o, w, entry.v);
            wgmma_commit();
            wgmma_wait<0>();
            hold(state.o);
            flash_give(shared, ring);
        } else {
            Entry<S> entry = flash_take(shared, ring);
            bool mine = turn == group && tile < piece.tile1;
            if (mine) {
                wgmma_fence();
                flash_logits<S>(s, NULL, q_tile, entry.k);
                wgmma_commit();
                wgmma_wait<0>();
                hold(s);
            }
            flash_give(shared, ring);
            if (mine) {
                flash_softmax<S, true>(p, piece, s, state, factor, sums, tile, limit, w, NULL, 0, 0);
                if (__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f))
                    flash_rescale<S>(state.o, factor);
            }
        }
        turn = turn + 1 < S::GROUPS ? turn + 1 : 0;
    }
#pragma unroll 1
    for (int from = 1; from < S::GROUPS; from++)
        flash_join(shared, state, from, group, thread);
    named_sync(8, 128 * S::GROUPS); /* the next piece's queries may come */
    if (group == 0)
        flash_store<S>(p, piece, state, row);
}

/* One of the consumer warpgroups. */
template <class S>
__device__ __forceinline__ void flash_consume(const Problem &p, FlashShared<S> &shared, int group)
{
    constexpr FlashMode MODE = S::MODE;
    constexpr bool ORDERED = S::GROUPS == 2 && MODE != FLASH_SPREAD;
    int thread = (int)threadIdx.x & 127, lane = thread & 31;
    int rows = is_prefill(MODE) ? p.prefill_rows : p.packed;
    int rank = S::PAIR == 1 ? 0 : (int)cluster_rank();
    unsigned char *q_place = shared.q + group * S::Q_GROUP;
    uint64_t q_tile = rows_descriptor(shared_address(q_place));
    Ring<S::ENTRIES> ring;
    Pieces<S> pieces;
    Piece piece = {};
    FlashState<S> state;
    bool asked = false;
    if (ORDERED && group == 1)
        named_arrive(6, 256); /* the first warpgroup may multiply first */
    pieces.begin(p, shared);
    while (pieces.next(p, shared, piece)) {
        int row0 = piece.row0 + (MODE == FLASH_SPREAD ? 0 : rank * S::ROWS + group * 64);
        bool alone = piece.row0 + rank * S::ROWS + 64 >= rows; /* only the first warpgroup has rows */
        if (row0 >= rows) {
            if (!asked && lane == 0)
                barrier_arrive(shared_address(&shared.asked));
            asked = true;
#pragma unroll 1
            for (int tile = piece.tile0; tile <= piece.tile1 && MODE != FLASH_SPREAD;
                 tile++) { /* nothing to do: pass them on */
                flash_take(shared, ring);
                flash_give(shared, ring);
            }
            continue;
        }
        int row = row0 + (thread >> 5) * 16 + lane / 4;
        int limit[2] = {0, 0};
        if (is_prefill(MODE))
            for (int i = 0; i < 2; i++)
                limit[i] = prefill_limit(p, row + 8 * i < rows ? row + 8 * i : rows - 1);
        named_sync(2 + group, 128); /* nobody needs the last piece's queries any more */
        flash_load_q<S>(p, piece, shared_address(q_place), row0, thread);
        if (!asked && lane == 0)
            barrier_arrive(shared_address(&shared.asked));
        asked = true;
        copy_wait<0>();
        if (!S::HELD)
            proxy_fence();
        named_sync(2 + group, 128);
#pragma unroll
        for (int i = 0; i < S::D / 2; i++)
            state.o[i] = 0.0f;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            /* Below any logit; above every one in a row of padding, whose probabilities are 0 then: products with
             * zeros take less power. */
            state.shift[r] = row + 8 * r < rows ? -1e30f : 1e30f;
            state.sum[r] = 0.0f;
        }
        if constexpr (MODE == FLASH_SPREAD) {
            flash_spread<S>(p, shared, ring, piece, state, limit, row, group, thread);
            continue;
        }
        uint32_t q[S::HELD ? S::D / 4 : 1], w[S::KEYS / 4];
        flash_fetch_q<S>(q, shared_address(q_place), thread);
        float s[S::KEYS / 2], factor[2] = {1.0f, 1.0f};
        TileSums sums = {};
        TilePlace place = {};
        if (MODE == FLASH_BLOCK_TILES)
            place = flash_tile_place(p, piece, row);
        Entry<S> entry = flash_take(shared, ring);
        wgmma_fence();
        flash_logits<S>(s, q, q_tile, entry.k);
        wgmma_commit();
        wgmma_wait<0>();
        hold(s);
        flash_give(shared, ring);
        flash_softmax<S, true>(p, piece, s, state, factor, sums, piece.tile0, limit, w, q, 0, 0);
        if (S::AHEAD)
            flash_pack<S>(s, w);
#pragma unroll 1
        for (int tile = piece.tile0 + 1; tile < piece.tile1; tile++) {
            entry = flash_take(shared, ring);
            if (ORDERED && !alone)
                named_sync(6 + group, 256);
            wgmma_fence();
            if (S::AHEAD) {
                flash_logits<S>(s, q, q_tile, entry.k);
                wgmma_commit();
            }
            flash_output<S>(state.o, w, entry.v);
            if (!S::AHEAD)
                flash_logits<S>(s, q, q_tile, entry.k);
            wgmma_commit();
            if (ORDERED && !alone)
                named_arrive(7 - group, 256);
            if (MODE == FLASH_BLOCK_TILES)
                flash_emit(p, place, sums, &shared.zero);
            if constexpr (S::AHEAD) {
                wgmma_wait<1>();
                hold(s);
            } else {
                wgmma_wait<0>();
                hold(s);
                hold(state.o);
            }
            bool moved = flash_softmax<S, false>(p, piece, s, state, factor, sums, tile, limit, w, q,
                                                 shared_address(q_place), entry.keys);
            if constexpr (S::AHEAD) {
                wgmma_wait<0>(); /* w is free */
                hold(state.o);
                flash_pack<S>(s, w);
            }
            if (moved)
                flash_rescale<S>(state.o, factor);
            flash_give(shared, ring);
        }
        flash_last(p, shared, ring, piece, state, w, group, thread);
        if (MODE == FLASH_BLOCK_TILES)
            flash_emit(p, place, sums, &shared.zero);
        flash_store<S>(p, piece, state, row);
    }
}
#endif /* __CUDA_ARCH_FEAT_SM90_ALL */

/* Grid: clusters * PAIR blocks. Elsewhere than on sm_90a the body is empty; the host never launches it there. */
template <class S>
__global__ void __launch_bounds__(S::THREADS, 1)
    flash_kernel(const __grid_constant__ Problem p, const __grid_constant__ CUtensorMap k_map,
                 const __grid_constant__ CUtensorMap v_map)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char dynamic[];
    /* The same offset in both blocks of a pair, because a multicast writes to equal addresses. */
    FlashShared<S> &shared = *(FlashShared<S> *)(dynamic + ((1024 - (shared_address(dynamic) & 1023)) & 1023));
    int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0); /* known to be the same for a warp */
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::ENTRIES; i++) {
            barrier_init(shared_address(shared.full + i), 1);
            barrier_init(shared_address(shared.empty + i), 4 * S::GROUPS * S::PAIR); /* one a consumer warp */
        }
        barrier_init(shared_address(&shared.asked), 4 * S::GROUPS);
        barrier_init_fence();
        prefetch_map(&k_map);
        prefetch_map(&v_map);
    }
    if (S::PAIR == 2)
        cluster_arrive();
    /* What follows in the stream waits for the end of this grid. FLASH_SPREAD needs nothing of FLASH_PREFILL's. */
    if (S::MODE != FLASH_SPREAD)
        wait_for_dependency();
    let_dependents_start();
    if (!is_prefill(S::MODE) && threadIdx.x >= 32 && threadIdx.x < 64)
        flash_count_tiles(p, shared);
    __syncthreads();
    if (S::PAIR == 2)
        cluster_wait();
    if (group == 0) {
        registers_shrink<S::LEFT>();
        if (!is_prefill(S::MODE) && blockIdx.x == 0 && threadIdx.x >= 64)
            flash_list_parts<S>(p, shared);
        if (threadIdx.x == 0)
            flash_produce<S>(p, shared, &k_map, &v_map);
    } else {
        registers_grow<S::REGISTERS>();
        flash_consume<S>(p, shared, group - 1);
    }
    if (S::MODE == FLASH_SPREAD)
        wait_for_dependency(); /* whoever waits for this grid waits for the other */
#endif
}

/* ---- host ---- */

/* Tensor map of [heads][capacity][head_dim] bf16, boxes of `slots` slots x 64 channels; what lies past head_dim
 * reads as 0. In attend_sm90.cu. */
int flash_map(const mb_cuda_chip *chip, CUtensorMap *map, const void *base, const Problem &p, int heads, int slots,
              mb_error *err);

/* A compiled kernel and what the host must know of it. */
typedef void (*FlashKernel)(const Problem, const CUtensorMap, const CUtensorMap);
struct FlashKind {
    FlashKernel kernel;
    FlashMode mode;
    int head_dim, keys;      /* keys of a tile */
    int rows, pair, threads; /* rows and blocks of a cluster */
    size_t shared;
};
template <class S> FlashKind flash_kind()
{
    static_assert(flash_shared_bytes<S> <= FLASH_SHARED_MOST, "shared memory of a block");
    return {flash_kernel<S>,   S::MODE, S::D,       S::KEYS,
            S::ROWS * S::PAIR, S::PAIR, S::THREADS, flash_shared_bytes<S>};
}

/* The kernel that pads `rows` query rows least, or NULL: no kernel is compiled for this. Equal ones: the first of
 * the list, where those stand that read a key for the most rows. */
const FlashKind *flash_find(FlashMode mode, int head_dim, int rows);
/* Clusters that run at once; grid sizes. */
int flash_clusters(const mb_cuda_chip *chip, const FlashKind &kind);
/* early: may begin while the launch before it in the stream drains. */
int flash_launch(const mb_cuda_chip *chip, const FlashKind &kind, const Problem &p, int heads, int clusters,
                 bool early, cudaStream_t stream, mb_error *err);

} /* namespace mb_cuda */

#endif
