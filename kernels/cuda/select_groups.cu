/*
 * select_groups.cu - exact top-k of long score rows in two steps: the whole chip reads every score once and leaves
 * the largest of each group of neighbours; then one block a row picks the k best groups and selects among their
 * keys alone.
 *
 * Why that is exact: order keys by (score, lower index first) and groups by (their largest key, lower index
 * first). A key outside the k best groups has k keys before it, one in each of those groups, so it is not among
 * the k best. Nothing depends on how the scores are distributed: at most k groups are read again. Among their keys
 * only those that reach the k-th best maximum can be chosen; for scores in no particular order that is little more
 * than k.
 */
#include "kernels/cuda/select_groups.cuh"
#include "kernels/cuda/depend.cuh"

using namespace mb_cuda;

constexpr int MAXIMA_THREADS = 256;
constexpr int LOADS = 8;                  /* 16-byte loads a thread has in flight */
constexpr int WARP_ENTRIES = LOADS * 128; /* scores of one warp */
constexpr int SELECT_THREADS = 1024, SELECT_WARPS = SELECT_THREADS / 32;
constexpr int OWN = GROUPS_MAX / SELECT_THREADS; /* maxima a thread holds */
constexpr int AT_ONCE = 4;                       /* loads of 128 scores that a warp has in flight */
constexpr int KEPT = 192;                        /* keys that a warp can keep; more are read again in every pass */

__device__ __forceinline__ int entries_of(const GroupArgs &a, int bh)
{
    int64_t n = ((int64_t)a.prefix_len[bh / a.kv_heads] + a.page - 1) / a.page;
    return (int)(n < 0 ? 0 : n < a.stride ? n : a.stride);
}

/* Four consecutive keys from entry j of a row of n; behind the end none is eligible. j is a multiple of 4 and the
 * row's stride too, so that the load stays inside the row. */
__device__ __forceinline__ void keys_at(const float *row, int j, int n, uint32_t (&key)[4])
{
    float4 x = j < n ? *(const float4 *)(row + j) : make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
    key[0] = key_of(x.x);
    key[1] = j + 1 < n ? key_of(x.y) : KEY_NEVER;
    key[2] = j + 2 < n ? key_of(x.z) : KEY_NEVER;
    key[3] = j + 3 < n ? key_of(x.w) : KEY_NEVER;
}

/* Grid: (parts of a row, rows). GROUP: entries of a group, a power of two, 32 .. 1024. */
template <int GROUP> __global__ void __launch_bounds__(MAXIMA_THREADS) group_maxima(GroupArgs a)
{
    constexpr int LANES = GROUP >= 128 ? 32 : GROUP / 4, ROUNDS = GROUP >= 128 ? GROUP / 128 : 1;
    let_dependents_start();
    int bh = blockIdx.y, n = entries_of(a, bh), lane = threadIdx.x & 31;
    int first = (int)(blockIdx.x * (MAXIMA_THREADS / 32) + (threadIdx.x >> 5)) * WARP_ENTRIES;
    if (first >= a.groups * GROUP)
        return;
    const float *row = a.scores + (int64_t)bh * a.stride;
    uint32_t *maxima = a.maxima + (int64_t)bh * a.groups, most[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        uint32_t key[4];
        keys_at(row, first + i * 128 + lane * 4, n, key);
        most[i] = max(max(key[0], key[1]), max(key[2], key[3]));
    }
#pragma unroll
    for (int i = 0; i < LOADS; i += ROUNDS) {
        uint32_t best = most[i];
#pragma unroll
        for (int r = 1; r < ROUNDS; r++)
            best = max(best, most[i + r]);
#pragma unroll
        for (int offset = 1; offset < LANES; offset <<= 1)
            best = max(best, __shfl_xor_sync(0xffffffffu, best, offset));
        int group = (first + i * 128 + lane * 4) / GROUP;
        if (lane % LANES == 0 && group < a.groups)
            maxima[group] = best;
    }
}

struct SelectShared {
    int histogram[BINS];
    int scan[32], picked[3];
    int greater[SELECT_WARPS], equal[SELECT_WARPS];
    uint16_t groups[GROUPS_MAX];
    uint32_t keys[SELECT_WARPS][KEPT];
    int32_t entries[SELECT_WARPS][KEPT];
};

/* The k-th largest of the keys that `each` visits (every thread some of them), digit by digit; `wanted` becomes
 * how many keys equal to it belong to the k best. Fewer than k keys: returns 1, the smallest eligible key, with
 * wanted = all its equals. Every thread gets the same answer. */
template <class Each> __device__ __forceinline__ uint32_t kth_largest(SelectShared &s, int &wanted, Each &&each)
{
    constexpr int PER = BINS / SELECT_THREADS;
    uint32_t prefix = 0, mask = 0;
#pragma unroll 1
    for (int pass = 0; pass < 3; pass++) {
        for (int i = threadIdx.x; i < BINS; i += SELECT_THREADS)
            s.histogram[i] = 0;
        __syncthreads();
        int shift = digit_shift(pass);
        uint32_t digits = digit_mask(pass);
        each([&](uint32_t key) {
            if (key != KEY_NEVER && (key & mask) == prefix)
                atomicAdd(&s.histogram[(key >> shift) & digits], 1);
        });
        __syncthreads();
        int own[PER], mine = 0, total;
#pragma unroll
        for (int i = 0; i < PER; i++) {
            own[i] = s.histogram[BINS - 1 - ((int)threadIdx.x * PER + i)];
            mine += own[i];
        }
        int before = block_scan(mine, s.scan, &total);
        if (total < wanted) { /* only in the first pass: all eligible keys are wanted */
            wanted = total;
            return KEY_NAN;
        }
        if (before < wanted && before + mine >= wanted) {
#pragma unroll
            for (int i = 0; i < PER; i++) {
                if (before < wanted && before + own[i] >= wanted) {
                    s.picked[0] = BINS - 1 - ((int)threadIdx.x * PER + i);
                    s.picked[1] = before;
                    s.picked[2] = own[i];
                }
                before += own[i];
            }
        }
        __syncthreads();
        wanted -= s.picked[1];
        prefix |= (uint32_t)s.picked[0] << shift;
        mask |= digits << shift;
        /* All keys with this beginning are wanted: the rest of the digits does not matter, and every key above
         * the bare prefix that has it counts as greater, the prefix itself as equal: the same set either way. */
        if (s.picked[2] == wanted)
            return prefix;
    }
    return prefix;
}

/* One block a row. */
__global__ void __launch_bounds__(SELECT_THREADS) select_groups(GroupArgs a)
{
    extern __shared__ __align__(16) unsigned char dynamic[];
    SelectShared &s = *(SelectShared *)dynamic;
    wait_for_dependency();
    int bh = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int n = entries_of(a, bh), k = a.k_dynamic ? a.k_dynamic[bh] : a.k;
    k = k < 0 ? 0 : k > a.capacity ? a.capacity : k;
    if (k == 0 || n == 0) {
        if (threadIdx.x == 0)
            a.counts[bh] = 0;
        return;
    }
    const float *row = a.scores + (int64_t)bh * a.stride;

    /* The groups that can hold one of the k best, in their order. */
    static_assert(OWN == 8, "two 16-byte loads; the number of groups is a multiple of 8");
    uint32_t most[OWN] = {};
    if ((int)threadIdx.x * OWN < a.groups) {
        const uint4 *from = (const uint4 *)(a.maxima + (int64_t)bh * a.groups) + threadIdx.x * 2;
        uint4 x = from[0], y = from[1];
        most[0] = x.x, most[1] = x.y, most[2] = x.z, most[3] = x.w;
        most[4] = y.x, most[5] = y.y, most[6] = y.z, most[7] = y.w;
    }
    int wanted = k;
    uint32_t least = kth_largest(s, wanted, [&](auto &&visit) {
#pragma unroll
        for (int i = 0; i < OWN; i++)
            visit(most[i]);
    });
    int both = 0, listed; /* groups above, and groups at `least` in the upper half; of these the first `wanted` */
#pragma unroll
    for (int i = 0; i < OWN; i++)
        both += (most[i] > least) + ((most[i] == least) << 16);
    both = block_scan(both, s.scan, &listed);
    int above = both & 0xffff, level = both >> 16, level_all = listed >> 16;
    wanted = wanted < level_all ? wanted : level_all;
    listed = (listed & 0xffff) + wanted;
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        if (most[i] > least || (most[i] == least && level < wanted))
            s.groups[above + (level < wanted ? level : wanted)] = (uint16_t)((int)threadIdx.x * OWN + i);
        above += most[i] > least;
        level += most[i] == least;
    }
    __syncthreads();

    /* Their keys that are not below `least`: warp w takes an equal share of the list and keeps what it finds. */
    int group_loads = a.group_shift >= 7 ? 1 << (a.group_shift - 7) : 1; /* 128 entries each */
    int per_load = a.group_shift >= 7 ? 1 : 128 >> a.group_shift;        /* groups of a load */
    int loads = (listed + per_load - 1) / per_load * group_loads;
    int begin = (int)((int64_t)loads * warp / SELECT_WARPS),
        end = (int)((int64_t)loads * (warp + 1) / SELECT_WARPS);
    uint32_t below = (1u << lane) - 1u;
    /* Visits this warp's keys >= least in the order of their entries: all lanes together, (entry, key), KEY_NEVER
     * where a lane has none. */
    auto keys_of_load = [&](int load, uint32_t(&key)[4]) {
        int item =
            a.group_shift >= 7 ? load >> (a.group_shift - 7) : load * per_load + (lane * 4 >> a.group_shift);
        int entry = n;
        if (item < listed)
            entry = ((int)s.groups[item] << a.group_shift) + (a.group_shift >= 7
                                                                  ? (load & (group_loads - 1)) * 128 + lane * 4
                                                                  : lane * 4 & ((1 << a.group_shift) - 1));
        keys_at(row, entry, n, key);
#pragma unroll
        for (int c = 0; c < 4; c++)
            key[c] = key[c] >= least ? key[c] : KEY_NEVER;
        return entry;
    };
    int kept = 0;
    for (int first = begin; first < end; first += AT_ONCE) {
        uint32_t key[AT_ONCE][4];
        int entry[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) /* past the share: a load that is there, and none of its keys */
            entry[i] = keys_of_load(first + i < end ? first + i : begin, key[i]);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            uint32_t found[4], any = 0;
            int at = kept;
#pragma unroll
            for (int c = 0; c < 4; c++) {
                found[c] = __ballot_sync(0xffffffffu, first + i < end && key[i][c] != KEY_NEVER);
                any |= found[c];
                at += __popc(found[c] & below);
                kept += __popc(found[c]);
            }
            if (!any)
                continue;
#pragma unroll
            for (int c = 0; c < 4; c++) {
                if (found[c] >> lane & 1) {
                    if (at < KEPT) {
                        s.keys[warp][at] = key[i][c];
                        s.entries[warp][at] = entry[i] + c;
                    }
                    at++;
                }
            }
        }
    }
    __syncwarp();
    bool whole = kept <= KEPT; /* else the keys are read from the row again */
    auto each = [&](auto &&visit) {
        if (whole) {
            for (int first = 0; first < kept; first += 32) {
                int i = first + lane;
                visit(i < kept ? s.entries[warp][i] : 0, i < kept ? s.keys[warp][i] : KEY_NEVER);
            }
            return;
        }
        for (int load = begin; load < end; load++) {
            uint32_t key[4];
            int entry = keys_of_load(load, key);
            /* Entries in order: those of lane 0 first, so each lane's four go one after the other. */
#pragma unroll
            for (int quarter = 0; quarter < 4; quarter++) {
                int from = quarter * 8 + lane / 4;
                uint32_t mine = KEY_NEVER;
                int first = __shfl_sync(0xffffffffu, entry, from);
#pragma unroll
                for (int c = 0; c < 4; c++) {
                    uint32_t other = __shfl_sync(0xffffffffu, key[c], from);
                    mine = (lane & 3) == c ? other : mine;
                }
                visit(first + (lane & 3), mine);
            }
        }
    };
    wanted = k;
    uint32_t last = kth_largest(s, wanted, [&](auto &&visit) { each([&](int, uint32_t key) { visit(key); }); });
    int greater = 0, equal = 0;
    each([&](int, uint32_t key) {
        greater += __popc(__ballot_sync(0xffffffffu, key > last));
        equal += __popc(__ballot_sync(0xffffffffu, key == last));
    });
    if (lane == 0) {
        s.greater[warp] = greater;
        s.equal[warp] = equal;
    }
    __syncthreads();
    int greater_before = 0, equal_before = 0, greater_all = 0, equal_all = 0;
    {
        int g = s.greater[lane], e = s.equal[lane], g_sum = g, e_sum = e;
        static_assert(SELECT_WARPS == 32, "a lane a warp");
#pragma unroll
        for (int offset = 1; offset < 32; offset <<= 1) {
            int x = __shfl_up_sync(0xffffffffu, g_sum, offset), y = __shfl_up_sync(0xffffffffu, e_sum, offset);
            g_sum += lane >= offset ? x : 0;
            e_sum += lane >= offset ? y : 0;
        }
        greater_all = __shfl_sync(0xffffffffu, g_sum, 31);
        equal_all = __shfl_sync(0xffffffffu, e_sum, 31);
        greater_before = __shfl_sync(0xffffffffu, g_sum - g, warp);
        equal_before = __shfl_sync(0xffffffffu, e_sum - e, warp);
    }
    int limit = k - greater_all < equal_all ? k - greater_all : equal_all; /* equals that are chosen */
    int32_t *ids = a.ids + (int64_t)bh * a.capacity;
    each([&](int entry, uint32_t key) {
        bool is_greater = key > last, is_equal = key == last;
        uint32_t g = __ballot_sync(0xffffffffu, is_greater), e = __ballot_sync(0xffffffffu, is_equal);
        int equals = equal_before + __popc(e & below);
        if (is_greater || (is_equal && equals < limit))
            ids[greater_before + __popc(g & below) + (equals < limit ? equals : limit)] = entry;
        greater_before += __popc(g);
        equal_before += __popc(e);
    });
    if (threadIdx.x == 0)
        a.counts[bh] = greater_all + limit;
}

static void launch_maxima(cudaStream_t stream, const GroupArgs &a, int rows)
{
    int warps = (a.groups << a.group_shift) / WARP_ENTRIES + 1;
    dim3 grid((unsigned)((warps + MAXIMA_THREADS / 32 - 1) / (MAXIMA_THREADS / 32)), (unsigned)rows);
    switch (a.group_shift) {
    case 5:
        group_maxima<32><<<grid, MAXIMA_THREADS, 0, stream>>>(a);
        break;
    case 6:
        group_maxima<64><<<grid, MAXIMA_THREADS, 0, stream>>>(a);
        break;
    case 7:
        group_maxima<128><<<grid, MAXIMA_THREADS, 0, stream>>>(a);
        break;
    case 8:
        group_maxima<256><<<grid, MAXIMA_THREADS, 0, stream>>>(a);
        break;
    case 9:
        group_maxima<512><<<grid, MAXIMA_THREADS, 0, stream>>>(a);
        break;
    default:
        group_maxima<1024><<<grid, MAXIMA_THREADS, 0, stream>>>(a);
        break;
    }
}

namespace mb_cuda
{

/* Groups are the smallest that keep their number within reach of one block. They pay where the k best of them are
 * half of all at most. */
bool top_groups_serves(const float *scores, int64_t stride, int64_t entries, int32_t capacity, int rows,
                       GroupArgs *a)
{
    int shift = 5;
    while (shift < 10 && entries > (int64_t)GROUPS_MAX << shift)
        shift++;
    a->group_shift = shift;
    a->groups = (int32_t)((((entries + (1 << shift) - 1) >> shift) + 7) / 8 * 8);
    return entries > GROUP_ENTRIES_MIN && a->groups <= GROUPS_MAX && 2 * (int64_t)capacity <= a->groups &&
           stride % 4 == 0 && (uintptr_t)scores % 16 == 0 && rows <= 65535;
}

cudaError_t launch_top_groups(const mb_cuda_chip *chip, cudaStream_t stream, const GroupArgs &a, int rows)
{
    /* A setting of the kernel, not of the stream: allowed while a graph is captured. */
    cudaError_t status = cudaFuncSetAttribute(select_groups, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              (int)sizeof(SelectShared));
    if (status != cudaSuccess)
        return status;
    launch_maxima(stream, a, rows);
    status = cudaGetLastError();
    return status != cudaSuccess
               ? status
               : launch_dependent(chip, select_groups, (unsigned)rows, SELECT_THREADS, sizeof(SelectShared), stream,
                                  a);
}

} // namespace mb_cuda
