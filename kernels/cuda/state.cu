/*
 * state.cu - attention states (output, log-sum-exp) over disjoint key sets: merge and downdate (methods.md 0.4),
 * distances of query rows, the count of work. One warp a state; fp32 arithmetic, one rounding at the store.
 */
#include "kernels/cuda/common.cuh"

using namespace mb_cuda;

__device__ __forceinline__ float read_as(const void *p, int type, int64_t i)
{
    return type == MB_F32 ? ((const float *)p)[i] : load((const __nv_bfloat16 *)p + i);
}

__device__ __forceinline__ void write_as(void *p, int type, int64_t i, float x)
{
    if (type == MB_F32)
        ((float *)p)[i] = x;
    else
        store((__nv_bfloat16 *)p + i, x);
}

struct Operand {
    const void *o;
    const float *lse;
    int type;
};

/* The vector of an empty state is never read, so it may hold anything. */
__global__ void merge_kernel(int64_t states, int dim, Operand a, Operand b, void *out, int type_out,
                             float *lse_out)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    int lane = threadIdx.x & 31;
    if (i >= states)
        return;
    float la = a.lse[i], lb = b.lse[i], m = la > lb ? la : lb;
    float wa = la == -INFINITY ? 0.0f : expf(la - m), wb = lb == -INFINITY ? 0.0f : expf(lb - m), w = wa + wb;
    float lse = w > 0.0f ? m + logf(w) : -INFINITY;
    if (isnan(la) || isnan(lb))
        lse = NAN;
    for (int c = lane; c < dim; c += 32) {
        float x = la == -INFINITY ? 0.0f : read_as(a.o, a.type, i * dim + c);
        float y = lb == -INFINITY ? 0.0f : read_as(b.o, b.type, i * dim + c);
        write_as(out, type_out, i * dim + c, (wa * x + wb * y) / (w == 0.0f ? 1.0f : w));
    }
    __syncwarp();
    if (lane == 0 && lse_out)
        lse_out[i] = lse;
}

extern "C" cudaError_t mb_launch_state_merge(cudaStream_t stream, int64_t states, int32_t head_dim,
                                             const void *o_a, mb_type type_a, const float *lse_a, const void *o_b,
                                             mb_type type_b, const float *lse_b, void *o_out, mb_type type_out,
                                             float *lse_out)
{
    Operand a = {o_a, lse_a, type_a}, b = {o_b, lse_b, type_b};
    if (states > 0)
        merge_kernel<<<blocks_for(states, 8), 256, 0, stream>>>(states, head_dim, a, b, o_out, type_out, lse_out);
    return cudaGetLastError();
}

__global__ void downdate_kernel(int64_t states, int dim, Operand total, Operand part, void *out, int type_out,
                                float *lse_out)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    int lane = threadIdx.x & 31;
    if (i >= states)
        return;
    float lt = total.lse[i], lp = part.lse[i], d = lp - lt, lse = lt, share = 0.0f, scale = 1.0f;
    bool empty = lt == -INFINITY || fabsf(expm1f(d)) <= 1e-5f; /* nothing is left */
    if (empty) {
        lse = -INFINITY;
    } else if (!(d > 0.0f)) { /* a larger part is inconsistent: the total stays */
        share = expf(d);
        lse = lt + logf(fmaxf(1.0f - share + 1e-7f, 1e-30f));
        scale = expf(lt - lse);
    }
    for (int c = lane; c < dim; c += 32) {
        float t = empty ? 0.0f : read_as(total.o, total.type, i * dim + c);
        float p = empty || share == 0.0f || lp == -INFINITY ? 0.0f : read_as(part.o, part.type, i * dim + c);
        write_as(out, type_out, i * dim + c, scale * (t - share * p));
    }
    __syncwarp();
    if (lane == 0 && lse_out)
        lse_out[i] = lse;
}

extern "C" cudaError_t mb_launch_state_downdate(cudaStream_t stream, int64_t states, int32_t head_dim,
                                                const void *o_total, mb_type type_total, const float *lse_total,
                                                const void *o_part, mb_type type_part, const float *lse_part,
                                                void *o_rest, mb_type type_rest, float *lse_rest)
{
    Operand total = {o_total, lse_total, type_total}, part = {o_part, lse_part, type_part};
    if (states > 0)
        downdate_kernel<<<blocks_for(states, 8), 256, 0, stream>>>(states, head_dim, total, part, o_rest,
                                                                   type_rest, lse_rest);
    return cudaGetLastError();
}

template <typename T>
__global__ void distance_kernel(const T *a, const T *b, int64_t n, int dim, float *distance, float *norm)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    int lane = threadIdx.x & 31;
    if (i >= n)
        return;
    float d = 0.0f, s = 0.0f;
    for (int c = lane; c < dim; c += 32) {
        float x = load(a + i * dim + c), y = load(b + i * dim + c);
        d += (x - y) * (x - y);
        s += y * y;
    }
    d = warp_sum(d);
    s = warp_sum(s);
    if (lane == 0) {
        distance[i] = d;
        if (norm)
            norm[i] = s;
    }
}

extern "C" cudaError_t mb_launch_row_distance(cudaStream_t stream, mb_type type, const void *a, const void *b,
                                              int64_t n, int32_t head_dim, float *distance, float *norm)
{
    if (n > 0)
        MB_WITH_TYPE(type, distance_kernel<T><<<blocks_for(n, 8), 256, 0, stream>>>((const T *)a, (const T *)b, n,
                                                                                   head_dim, distance, norm));
    return cudaGetLastError();
}

/* One warp adds the counts of all (sequence, head) pairs in order; token counts are exact integers below 2^53. Heads
 * that active (NULL = all) leaves out read nothing; present: their prefixes are counted too, in tokens[1]. */
__global__ void count_kernel(int batch, int kv_heads, const int32_t *prefix_len, const int32_t *ids,
                             const int32_t *counts, int granularity, int capacity, const int32_t *active,
                             bool present, double *tokens)
{
    int lane = threadIdx.x;
    double read = 0.0, all = 0.0;
    for (int bh = lane; bh < batch * kv_heads; bh += 32) {
        int64_t prefix = prefix_len[bh / kv_heads], mine = prefix;
        int count = counts ? counts[bh] : -1;
        if (count >= 0) {
            count = count < capacity ? count : capacity;
            mine = (int64_t)count * granularity;
            if (count > 0) { /* ids ascend: only the last page can be cut by the end of the prefix */
                int64_t left = prefix - (int64_t)ids[(int64_t)bh * capacity + count - 1] * granularity;
                mine -= left < 0 ? granularity : left < granularity ? granularity - left : 0;
            }
        }
        read += active && !active[bh] ? 0.0 : (double)mine;
        all += (double)prefix;
    }
    for (int offset = 16; offset; offset >>= 1) {
        read += __shfl_xor_sync(0xffffffffu, read, offset);
        all += __shfl_xor_sync(0xffffffffu, all, offset);
    }
    if (lane == 0) {
        tokens[0] += read;
        if (present)
            tokens[1] += all;
    }
}

extern "C" cudaError_t mb_launch_count_work(cudaStream_t stream, const mb_rows *rows, int32_t kv_heads,
                                            const mb_pages *pages, double *tokens)
{
    count_kernel<<<1, 32, 0, stream>>>(rows->batch, kv_heads, rows->prefix_len, pages ? pages->ids : NULL,
                                       pages ? pages->counts : NULL, pages ? pages->granularity : 1,
                                       pages ? pages->capacity : 0, NULL, true, tokens);
    return cudaGetLastError();
}

extern "C" cudaError_t mb_launch_count_read(cudaStream_t stream, const mb_rows *rows, int32_t kv_heads,
                                            const mb_pages *pages, const int32_t *active, double *tokens)
{
    count_kernel<<<1, 32, 0, stream>>>(rows->batch, kv_heads, rows->prefix_len, pages ? pages->ids : NULL,
                                       pages ? pages->counts : NULL, pages ? pages->granularity : 1,
                                       pages ? pages->capacity : 0, active, false, tokens);
    return cudaGetLastError();
}
