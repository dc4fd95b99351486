/*
 * merge.cu - merging partial attention states that a split kernel left in the workspace: one warp a packed row
 * adds the parts in ascending order of split, each weighted by exp(its log-sum-exp - the largest), so the result
 * does not depend on timing.
 */
#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/common.cuh"

namespace mb_cuda {
namespace {

constexpr int WARPS = 4;

/* Grid: (packed rows / WARPS, units). */
template <typename T> __global__ void __launch_bounds__(WARPS * 32) merge_rows(const __grid_constant__ Problem p)
{
    int unit = (int)blockIdx.y, row = (int)blockIdx.x * WARPS + ((int)threadIdx.x >> 5);
    int lane = (int)threadIdx.x & 31;
    int b = unit / p.kv_heads, h = unit % p.kv_heads;
    if (row >= p.packed || !is_active(p, b, h))
        return;
    const float *lse = p.part_lse + (int64_t)unit * p.splits * p.packed + row;
    const float *part = p.part_out + ((int64_t)unit * p.splits * p.packed + row) * p.head_dim;
    float top = -INFINITY, sum = 0.0f;
    for (int s = 0; s < p.splits; s++)
        top = fmaxf(top, lse[(int64_t)s * p.packed]);
    for (int s = 0; s < p.splits && top > -INFINITY; s++)
        sum += fast_exp2((lse[(int64_t)s * p.packed] - top) * LOG2E);
    int64_t state = state_of(p, b, h, row);
    for (int c = lane; p.out && c < p.head_dim; c += 32) {
        float o = 0.0f;
        for (int s = 0; s < p.splits && top > -INFINITY; s++) {
            float weight = fast_exp2((lse[(int64_t)s * p.packed] - top) * LOG2E);
            if (weight > 0.0f)
                o += weight * part[(int64_t)s * p.packed * p.head_dim + c];
        }
        store((T *)p.out + state * p.head_dim + c, sum > 0.0f ? o / sum : 0.0f);
    }
    if (p.lse && lane == 0)
        p.lse[state] = sum > 0.0f ? top + logf(sum) : -INFINITY;
}

} /* namespace */

int merge_splits(const Problem &p, mb_type type, cudaStream_t stream, mb_error *err)
{
    dim3 grid((unsigned)((p.packed + WARPS - 1) / WARPS), (unsigned)(p.batch * p.kv_heads));
    MB_WITH_TYPE(type, merge_rows<T><<<grid, WARPS * 32, 0, stream>>>(p));
    return check_launch("merging attention states", err);
}

} /* namespace mb_cuda */
