/*
 * votes_sm90.cu - votes of query rows on sm_90a: bf16, head_dim 128, up to 256 packed rows, keys in two passes.
 *
 * No logits are stored: computing them again is cheaper than writing and reading 4 bytes for each. (1) peaks: keys
 * are dealt to some thousand groups and every row keeps the largest logit of each group; (2) lines: the k-th
 * largest of a row's peaks is a bound that at least k keys reach, and not many more; (3) pick: the same products
 * again, keys at or above the bound go to the row's list of candidates, and the exponentials of all rows are added
 * up per key; (4) choose: the k best candidates, exactly, ties to the lower index, add their votes; (5) totals.
 *
 * A group is what one thread meets: keys far apart, so that neighbours that are large together fall into different
 * groups. With g groups about -g ln(1 - k/g) keys reach the bound: 1.15 k at g = 4 k. A row whose list overflows
 * (hardly possible but by thousands of equal logits) is done alone by `rescue`. Lists fill in any order, but which
 * keys they hold, and what is chosen from them, does not depend on it; votes are added as whole numbers.
 */
#include "kernels/cuda/keys_sm90.cuh"
#include "kernels/cuda/votes_rows.cuh"

namespace mb_cuda {
namespace {

constexpr int SLOTS = 20; /* hits that a thread holds before it must hand them on */

/* Tiles in the ring of a warpgroup. */
template <bool PICK> constexpr int pass_depth = PICK ? 2 : 4;

template <int N, bool PICK> struct VotesShared {
    static constexpr int STAGES = pass_groups<PICK> * pass_depth<PICK>;
    unsigned char q[N * FLASH_D * 2];
    unsigned char k[STAGES * KEYS_TILE_BYTES];
    uint2 hits[PICK ? KEYS_GROUPS * 4 : 1][SLOTS * 32]; /* of a lane every 32nd: logit, row << 24 | index */
    float shift[N], line[N];
    uint64_t full[STAGES], empty[STAGES];
};

template <int N, bool PICK> constexpr size_t shared_size = sizeof(VotesShared<N, PICK>) + 1024;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Which tiles a warpgroup takes: slot s of `slots` has tiles s, s + slots, ... A warpgroup has one slot a part,
 * and a ring of its own: turn t of group g uses stage g + GROUPS * (t % DEPTH). Turns without a tile go round it
 * too. */
template <bool PICK> struct Deal {
    static constexpr int GROUPS = pass_groups<PICK>, DEPTH = pass_depth<PICK>;
    int tiles, width, slots, rounds;
    __device__ __forceinline__ Deal(int prefix, int parts)
    {
        tiles = (prefix + TILE - 1) / TILE;
        width = (int)gridDim.x * GROUPS;
        slots = width * parts;
        rounds = (tiles + slots - 1) / slots;
    }
    __device__ __forceinline__ int slot(int part, int group) const
    {
        return part * width + group * (int)gridDim.x + (int)blockIdx.x;
    }
    static __device__ __forceinline__ int stage(int turn, int group)
    {
        return group + GROUPS * (turn % DEPTH);
    }
    static __device__ __forceinline__ uint32_t phase(int turn)
    {
        return (uint32_t)(turn / DEPTH) & 1;
    }
};

/* Keys behind the prefix: never a peak, never eligible. */
template <int C> __device__ __forceinline__ void hide_keys(float (&s)[C / 2], int key, int prefix)
{
#pragma unroll
    for (int i = 0; i < C / 2; i++)
        s[i] = key + ((i & 2) << 2) < prefix ? s[i] : -INFINITY;
}

/* Largest of each query row's two keys so far. */
template <int C>
__device__ __forceinline__ void take_peaks(float (&s)[C / 2], float *best, int key, int prefix, bool last)
{
    if (last)
        hide_keys<C>(s, key, prefix);
#pragma unroll
    for (int i = 0; i < C / 4; i++)
        best[i] = fmaxf(best[i], fmaxf(s[i / 2 * 4 + i % 2], s[i / 2 * 4 + i % 2 + 2]));
}

template <int N>
__device__ __forceinline__ void find_peaks(const Problem &p, const Votes &v, VotesShared<N, false> &shared,
                                           int prefix, int group)
{
    constexpr int C = keys_chunk<N>;
    int thread = (int)threadIdx.x - 128, lane = thread & 31, warp = (thread >> 5) & 3;
    uint32_t q = shared_address(shared.q);
    Deal<false> deal(prefix, v.parts);
    int fold = fold_of(deal.tiles < deal.slots ? deal.tiles : deal.slots, v.peaks);
    for (int part = 0, turn = 0; part < v.parts; part++) {
        int slot = deal.slot(part, group);
        float best[N / 4];
#pragma unroll
        for (int i = 0; i < N / 4; i++)
            best[i] = -INFINITY;
#pragma unroll 1
        for (int round = 0; round < deal.rounds; round++, turn++) {
            int tile = slot + round * deal.slots, stage = deal.stage(turn, group);
            uint32_t k_tile = shared_address(shared.k) + (uint32_t)stage * KEYS_TILE_BYTES;
            barrier_wait(shared_address(shared.full + stage), deal.phase(turn));
            if (tile < deal.tiles) {
                int key = tile * TILE + warp * 16 + lane / 4;
                bool last = (tile + 1) * TILE > prefix;
                float left[C / 2];
                multiply_rows<N, C>(left, k_tile, q, 0);
                if constexpr (C < N) {
                    float right[C / 2];
                    multiply_rows<N, C>(right, k_tile, q, C);
                    wgmma_wait<1>();
                    hold(left);
                    take_peaks<C>(left, best, key, prefix, last);
                    wgmma_wait<0>();
                    hold(right);
                    if (lane == 0)
                        barrier_arrive(shared_address(shared.empty + stage));
                    take_peaks<C>(right, best + C / 4, key, prefix, last);
                } else {
                    wgmma_wait<0>();
                    hold(left);
                    if (lane == 0)
                        barrier_arrive(shared_address(shared.empty + stage));
                    take_peaks<C>(left, best, key, prefix, last);
                }
            } else if (lane == 0) {
                barrier_arrive(shared_address(shared.empty + stage));
            }
        }
        if (slot >= deal.tiles)
            continue;
#pragma unroll 1
        for (int f = 0; f < fold; f++)
#pragma unroll
            for (int i = 0; i < N / 4; i++)
                best[i] = fmaxf(best[i], __shfl_xor_sync(0xffffffffu, best[i], 16 >> f));
        int first = 2 * (lane & 3), rows = lane < 32 >> fold ? p.packed : 0;
        float *to = v.pool + ((int64_t)blockIdx.y * p.packed + first) * v.peaks + slot * (32 >> fold) +
                    warp * (8 >> fold) + lane / 4;
#pragma unroll
        for (int i = 0; i < N / 4; i++, to += i % 2 ? v.peaks : 7 * v.peaks)
            if (first + i / 2 * 8 + i % 2 < rows)
                *to = best[i];
    }
}

/* What a thread has found and not handed on: addresses in shared memory of its first slot and of the next free
 * one. Slots of a lane are 32 entries apart. */
struct Hits {
    static constexpr uint32_t STEP = 32 * sizeof(uint2);
    uint32_t first, next;

    __device__ __forceinline__ bool room(int wanted) const
    {
        return next <= first + (SLOTS - wanted) * STEP;
    }
    __device__ __forceinline__ void add(float logit, uint32_t code)
    {
        asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(next), "f"(logit), "r"(code) : "memory");
        next += STEP;
    }
    __device__ __forceinline__ uint2 take(uint32_t at) const
    {
        uint2 x;
        asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(x.x), "=r"(x.y) : "r"(at) : "memory");
        return x;
    }
};

/* Moves what a thread holds into the lists of the rows; four of its atomics are under way at once. */
__device__ __forceinline__ void drain_hits(const Problem &p, const Votes &v, Hits &hits)
{
#pragma unroll 1
    for (uint32_t first = hits.first; first < hits.next; first += 4 * Hits::STEP) {
        uint2 x[4];
        int line[4], at[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            at[i] = v.capacity;
            x[i] = first + i * Hits::STEP < hits.next ? hits.take(first + i * Hits::STEP)
                                                      : make_uint2(0xff800000u, 0);
            int row = (int)(x[i].y >> 24);
            x[i].x = key_of(__uint_as_float(x[i].x));
            line[i] = (int)blockIdx.y * p.packed + row;
            if (row < p.packed && x[i].x != KEY_NEVER)
                at[i] = atomicAdd(v.counts + (int64_t)line[i] * COUNT_STRIDE, 1);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (at[i] < v.capacity)
                v.candidates[(int64_t)line[i] * v.capacity + at[i]] = make_uint2(x[i].x, x[i].y & 0xffffffu);
    }
    hits.next = hits.first;
}

/* Keeps the logits of C rows that reach their lines. NaN passes: whether it counts is settled later. code: the
 * thread's first key, with its first row in the upper byte. First a mask of half of the logits, then one place
 * that stores and one that drains: with a drain behind every logit the code would not fit its cache. */
template <int C>
__device__ __forceinline__ void pick_rows(const Problem &p, const Votes &v, const float (&s)[C / 2],
                                          const float *line, uint32_t code, Hits &hits)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        constexpr int STEPS = C / 16;
        uint32_t mask = 0;
#pragma unroll
        for (int n = 0; n < STEPS; n++) {
            float2 x = *(const float2 *)(line + (half * STEPS + n) * 8);
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (!(s[4 * (half * STEPS + n) + i] < (i & 1 ? x.y : x.x)))
                    mask |= 1u << (4 * n + i);
        }
        while (mask) {
            asm volatile("" : "+r"(code)); /* else all its sums are made before the loop, and spilled */
#pragma unroll
            for (int n = 0; n < STEPS; n++)
                if (mask & 15u << (4 * n) && hits.room(4)) {
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        if (mask & 1u << (4 * n + i))
                            hits.add(s[4 * (half * STEPS + n) + i],
                                     code + ((uint32_t)((half * STEPS + n) * 8 + (i & 1)) << 24) + (i & 2) * 4);
                    mask &= ~(15u << (4 * n));
                }
            if (mask)
                drain_hits(p, v, hits);
        }
    }
}

template <int N>
__device__ __forceinline__ void pick_keys(const Problem &p, const Votes &v, VotesShared<N, true> &shared,
                                          int prefix, int group)
{
    constexpr int C = keys_chunk<N>;
    int thread = (int)threadIdx.x - 128, lane = thread & 31, warp = (thread >> 5) & 3;
    uint32_t q = shared_address(shared.q);
    const float *shift = shared.shift + (lane & 3) * 2, *line = shared.line + (lane & 3) * 2;
    float *mass = v.mass + blockIdx.y * v.stride, inverse = 1.0f / (float)p.packed;
    Hits hits;
    hits.first = hits.next = shared_address(shared.hits[group * 4 + warp] + lane);
    asm volatile("" : "+r"(hits.first)); /* kept, not computed again at every use */
    Deal<true> deal(prefix, 1);
#pragma unroll 1
    for (int turn = 0; turn < deal.rounds; turn++) {
        int tile = deal.slot(0, group) + turn * deal.slots, stage = deal.stage(turn, group);
        uint32_t k_tile = shared_address(shared.k) + (uint32_t)stage * KEYS_TILE_BYTES;
        barrier_wait(shared_address(shared.full + stage), deal.phase(turn));
        if (tile < deal.tiles) {
            int key = tile * TILE + warp * 16 + lane / 4;
            uint32_t code = (uint32_t)key | (uint32_t)(lane & 3) << 25;
            asm volatile("" : "+r"(key), "+r"(code));
            bool last = (tile + 1) * TILE > prefix;
            float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f}, left[C / 2];
            multiply_rows<N, C>(left, k_tile, q, 0);
            if constexpr (C < N) {
                float right[C / 2];
                multiply_rows<N, C>(right, k_tile, q, C);
                wgmma_wait<1>();
                hold(left);
                if (last)
                    hide_keys<C>(left, key, prefix);
                add_rows<C>(left, shift, p.scale_log2, sum);
                pick_rows<C>(p, v, left, line, code, hits);
                wgmma_wait<0>();
                hold(right);
                if (lane == 0)
                    barrier_arrive(shared_address(shared.empty + stage));
                if (last)
                    hide_keys<C>(right, key, prefix);
                add_rows<C>(right, shift + C, p.scale_log2, sum);
                pick_rows<C>(p, v, right, line + C, code + ((uint32_t)C << 24), hits);
            } else {
                wgmma_wait<0>();
                hold(left);
                if (lane == 0)
                    barrier_arrive(shared_address(shared.empty + stage));
                if (last)
                    hide_keys<C>(left, key, prefix);
                add_rows<C>(left, shift, p.scale_log2, sum);
                pick_rows<C>(p, v, left, line, code, hits);
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float value = quad_sum(sum[2 * i] + sum[2 * i + 1]) * inverse;
                if ((lane & 3) == 0 && key + 8 * i < prefix)
                    mass[key + 8 * i] = value;
            }
        } else if (lane == 0) {
            barrier_arrive(shared_address(shared.empty + stage));
        }
    }
    drain_hits(p, v, hits);
}

#endif

/* Grid: (blocks, units). Peaks, or picks. */
template <int N, bool PICK>
__global__ void __launch_bounds__(pass_threads<PICK>, 1)
    vote_pass(const __grid_constant__ Problem p, const __grid_constant__ Votes v,
              const __grid_constant__ CUtensorMap k_map)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ unsigned char dynamic[];
    constexpr int GROUPS = pass_groups<PICK>, STAGES = VotesShared<N, PICK>::STAGES;
    VotesShared<N, PICK> &shared =
        *(VotesShared<N, PICK> *)(dynamic + ((1024 - (shared_address(dynamic) & 1023)) & 1023));
    int group = __shfl_sync(0xffffffffu, (int)threadIdx.x / 128, 0), unit = v.unit0 + (int)blockIdx.y;
    int prefix = prefix_of(p, unit);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(shared_address(shared.full + i), 1);
            barrier_init(shared_address(shared.empty + i), 4); /* the four warps that had the tile */
        }
        barrier_init_fence();
        prefetch_map(&k_map);
    }
    __syncthreads();
    if (group == 0) {
        registers_shrink<24>();
        if (threadIdx.x == 0) {
            int parts = PICK ? 1 : v.parts;
            Deal<PICK> deal(prefix, parts);
#pragma unroll 1
            for (int part = 0, turn = 0; part < parts; part++)
#pragma unroll 1
                for (int round = 0; round < deal.rounds; round++, turn++)
                    for (int g = 0; g < GROUPS; g++) {
                        int tile = deal.slot(part, g) + round * deal.slots, stage = deal.stage(turn, g);
                        uint32_t full = shared_address(shared.full + stage);
                        barrier_wait(shared_address(shared.empty + stage), deal.phase(turn) ^ 1);
                        if (tile < deal.tiles)
                            copy_keys(shared_address(shared.k) + (uint32_t)stage * KEYS_TILE_BYTES, &k_map, full,
                                      tile * TILE, unit);
                        else
                            barrier_arrive(full); /* an empty turn */
                    }
        } else if (!PICK && threadIdx.x >= 32) {
            for (int64_t j = (int64_t)blockIdx.x * 96 + threadIdx.x - 32; j < v.written; j += gridDim.x * 96)
                v.votes[unit * v.votes_stride + j] = 0.0f;
        }
    } else {
        registers_grow<PICK ? 160 : 240>();
        int thread = (int)threadIdx.x - 128;
        load_queries<N>(p, shared.q, shared.shift, unit / p.kv_heads, unit % p.kv_heads, thread, GROUPS * 128);
        for (int row = thread; PICK && row < N; row += GROUPS * 128)
            shared.line[row] = row < p.packed ? v.lines[(int64_t)blockIdx.y * p.packed + row] : INFINITY;
        named_sync(2, GROUPS * 128);
        if constexpr (PICK)
            pick_keys<N>(p, v, shared, prefix, group - 1);
        else
            find_peaks<N>(p, v, shared, prefix, group - 1);
    }
#endif
}

/* ---- host ---- */

typedef void (*PassKernel)(const Problem, const Votes, const CUtensorMap);

struct Variant {
    PassKernel peaks, pick;
    size_t peaks_bytes, pick_bytes;
};

template <int N> Variant variant()
{
    return {vote_pass<N, false>, vote_pass<N, true>, shared_size<N, false>, shared_size<N, true>};
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

/* Sizes for `units` at a time, and the parts of the scratch; false when they do not fit. */
bool lay_out(const mb_cuda_chip *chip, const Problem &p, int k, int units, char *base, size_t bytes, Votes *v)
{
    size_t used = 0, rows = (size_t)units * p.packed;
    auto take = [&](size_t size) {
        char *at = base ? base + used : NULL;
        used += (size + 255) / 256 * 256;
        return at;
    };
    v->stride = ((int64_t)p.max_prefix + 63) / 64 * 64;
    v->budget = k < v->stride ? k : (int)v->stride;
    v->units = units;
    v->blocks = chip->multiprocessors / units;
    int64_t width = (int64_t)v->blocks * pass_groups<false>, most = (v->stride / TILE + width - 1) / width;
    int64_t parts = (2 * (int64_t)v->budget + 32 * width - 1) / (32 * width); /* 2 k groups at least */
    v->parts = (int)(parts < 1 ? 1 : parts < most ? parts : most);
    int64_t all = 4 * width * v->parts, peaks = 6 * (int64_t)v->budget > all ? 6 * (int64_t)v->budget : all;
    int64_t capacity = v->budget > 256 ? 4 * (int64_t)v->budget : 1024;
    v->peaks = (int)((peaks + 63) / 64 * 64);
    v->capacity = (int)(capacity < v->stride ? capacity : v->stride);
    v->lines = (float *)take(rows * sizeof(float));
    v->counts = (int32_t *)take(rows * COUNT_STRIDE * sizeof(int32_t));
    v->tickets = (int32_t *)take((size_t)units * sizeof(int32_t));
    v->partial = (double *)take((size_t)units * TOTAL_BLOCKS * 2 * sizeof(double));
    v->mass = (float *)take((size_t)(units * v->stride) * sizeof(float));
    v->candidates = (uint2 *)take(rows * (size_t)v->capacity * sizeof(uint2));
    size_t line = (size_t)v->stride * sizeof(float), pool = rows * (size_t)v->peaks * sizeof(float);
    if (used + (pool > line ? pool : line) > bytes)
        return false;
    v->pool = (float *)take(0);
    size_t rescuers = (bytes - used) / line;
    v->rescuers = rescuers < (size_t)chip->multiprocessors ? (int)rescuers : chip->multiprocessors;
    return true;
}

/* How many units at a time take the fewest rounds of tiles; 0: not even one fits. A launch costs some 40 rounds. */
int choose_units(const mb_cuda_chip *chip, const Problem &p, int k, size_t bytes)
{
    int total = p.batch * p.kv_heads, best = 0;
    int64_t least = 0;
    Votes v = {};
    for (int units = 1; units <= total && units <= chip->multiprocessors; units++) {
        if (!lay_out(chip, p, k, units, NULL, bytes, &v))
            continue;
        int64_t cost = (total + units - 1) / units * ((v.stride / TILE + v.blocks - 1) / v.blocks + 40);
        if (!best || cost < least)
            best = units, least = cost;
    }
    return best;
}

} /* namespace */

bool sm90_votes_serves(const mb_cuda_chip *chip, mb_type type, const Problem &p, int32_t k, size_t bytes)
{
    return sm90_serves(chip, type, p) && p.head_dim == FLASH_D && p.packed <= 256 && p.max_prefix >= 1024 &&
           p.capacity <= 1 << 24 &&
           choose_units(chip, p, k, bytes) > 0;
}

int sm90_votes(const mb_cuda_chip *chip, const Problem &from, const mb_votes *call, size_t bytes, cudaStream_t stream,
               mb_error *err)
{
    Problem p = from;
    Votes v = {};
    CUtensorMap k_map;
    int total = p.batch * p.kv_heads, units = choose_units(chip, p, call->k, bytes);
    int rc = flash_map(chip, &k_map, p.k, p, total, KEYS_TILE, err);
    p.row_weight = NULL; /* every row votes and counts alike */
    v.votes = call->votes;
    v.stats = call->stats;
    v.votes_stride = p.mass_stride;
    Variant kernels = choose(p.packed);
    for (int unit0 = 0; rc == MB_OK && unit0 < total; unit0 += units) {
        lay_out(chip, p, call->k, units < total - unit0 ? units : total - unit0, (char *)call->scratch, bytes,
                &v);
        v.unit0 = unit0;
        v.written = v.stride < v.votes_stride ? v.stride : v.votes_stride;
        dim3 grid((unsigned)v.blocks, (unsigned)v.units), rows((unsigned)p.packed, (unsigned)v.units);
        kernels.peaks<<<grid, pass_threads<false>, kernels.peaks_bytes, stream>>>(p, v, k_map);
        vote_bounds<<<rows, SMALL_THREADS, 0, stream>>>(p, v);
        kernels.pick<<<grid, pass_threads<true>, kernels.pick_bytes, stream>>>(p, v, k_map);
        vote_choose<<<rows, SMALL_THREADS, 0, stream>>>(p, v);
        vote_rescue<<<v.rescuers, RESCUE_THREADS, 0, stream>>>(p, v);
        vote_totals<<<dim3(TOTAL_BLOCKS, (unsigned)v.units), SMALL_THREADS, 0, stream>>>(p, v);
        rc = check_launch("votes (sm_90a)", err);
    }
    return rc;
}

int sm90_votes_setup(mb_error *err)
{
    static_assert(shared_size<256, true> <= 227 * 1024 && shared_size<256, false> <= 227 * 1024, "fits");
    int sizes[] = {64, 128, 192, 224, 256};
    for (int i = 0; i < 5; i++) {
        Variant v = choose(sizes[i]);
        cudaFuncSetAttribute(v.peaks, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)v.peaks_bytes);
        cudaFuncSetAttribute(v.pick, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)v.pick_bytes);
    }
    return check_launch("setting up the sm_90a votes kernels", err);
}

} /* namespace mb_cuda */
