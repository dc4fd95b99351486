/*
 * select_groups.cuh - exact top-k of long score rows through the maxima of groups of scores: what select.cu asks.
 * Chosen by select.cu where it serves; the result is that of its own kernels, bit for bit.
 */
#ifndef MB_CUDA_SELECT_GROUPS_CUH
#define MB_CUDA_SELECT_GROUPS_CUH

#include "kernels/cuda/select.cuh"

namespace mb_cuda
{

constexpr int GROUPS_MAX = 8192;         /* of a row */
constexpr int GROUP_ENTRIES_MIN = 16384; /* shorter rows fit in one block's registers */

struct GroupArgs {
    const float *scores;
    int64_t stride;
    int32_t kv_heads, page, k, capacity, groups, group_shift; /* groups of 1 << group_shift entries */
    const int32_t *prefix_len, *k_dynamic;
    int32_t *ids, *counts;
    uint32_t *maxima; /* scratch: [rows][groups] keys */
};

/* Words of `maxima` that any call with up to max_entries entries a row may need, for each row. */
static inline int64_t top_groups_words(int64_t max_entries)
{
    int64_t groups = ((max_entries + 31) / 32 + 7) / 8 * 8;
    return groups < GROUPS_MAX ? groups : GROUPS_MAX;
}

/* Whether rows of `entries` scores are served; fills the groups of *a. */
bool top_groups_serves(const float *scores, int64_t stride, int64_t entries, int32_t capacity, int rows,
                       GroupArgs *a);
cudaError_t launch_top_groups(const mb_cuda_chip *chip, cudaStream_t stream, const GroupArgs &a, int rows);

} // namespace mb_cuda

#endif
