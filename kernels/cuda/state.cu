/*
 * state.cu - attention states (output, log-sum-exp) over disjoint key sets: merge and downdate (formulas and
 * guards: kernels/cpu/state.c), distances of query rows, the count of work. One warp a state; fp32
 * arithmetic, one rounding at the store.
 */
#include "kernels/cuda/common.cuh"

using namespace mb_cuda;

/* A state is fp32 or of the storage type T, which is known where a kernel is launched. */
template <typename T> __device__ __forceinline__ float read_as(const void *p, bool fp32, int64_t i)
{
    return fp32 ? ((const float *)p)[i] : load((const T *)p + i);
}

template <typename T> __device__ __forceinline__ void write_as(void *p, bool fp32, int64_t i, float x)
{
    if (fp32)
        ((float *)p)[i] = x;
    else
        store((T *)p + i, x);
}

struct Operand {
    const void *o;
    const float *lse;
    bool fp32;
};

/* The vector of an empty state is never read, so it may hold anything. */
template <typename T>
__global__ void merge_kernel(int64_t states, int dim, Operand a, Operand b, void *out, bool out_fp32,
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
        float x = la == -INFINITY ? 0.0f : read_as<T>(a.o, a.fp32, i * dim + c);
        float y = lb == -INFINITY ? 0.0f : read_as<T>(b.o, b.fp32, i * dim + c);
        write_as<T>(out, out_fp32, i * dim + c, (wa * x + wb * y) / (w == 0.0f ? 1.0f : w));
    }
    __syncwarp();
    if (lane == 0 && lse_out)
        lse_out[i] = lse;
}

static Operand operand_of(const mb_state *state)
{
    return {state->o, state->lse, state->fp32 != 0};
}

MB_CUDA_OPERATION(state_merge, mb_state_pair, MB_PART_BLOCK_ATTENTION)
{
    Operand a = operand_of(&args->a), b = operand_of(&args->b);
    if (args->states > 0)
        MB_WITH_TYPE(device->type, merge_kernel<T><<<blocks_for(args->states, 8), 256, 0, device->stream>>>(
                                       args->states, args->head_dim, a, b, args->out.o, args->out.fp32,
                                       args->out.lse));
    return cudaGetLastError();
}

template <typename T>
__global__ void downdate_kernel(int64_t states, int dim, Operand total, Operand part, void *out, bool out_fp32,
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
        float t = empty ? 0.0f : read_as<T>(total.o, total.fp32, i * dim + c);
        float p = empty || share == 0.0f || lp == -INFINITY ? 0.0f : read_as<T>(part.o, part.fp32, i * dim + c);
        write_as<T>(out, out_fp32, i * dim + c, scale * (t - share * p));
    }
    __syncwarp();
    if (lane == 0 && lse_out)
        lse_out[i] = lse;
}

MB_CUDA_OPERATION(state_downdate, mb_state_pair, MB_PART_BLOCK_ATTENTION)
{
    Operand total = operand_of(&args->a), part = operand_of(&args->b);
    if (args->states > 0)
        MB_WITH_TYPE(device->type, downdate_kernel<T><<<blocks_for(args->states, 8), 256, 0, device->stream>>>(
                                       args->states, args->head_dim, total, part, args->out.o, args->out.fp32,
                                       args->out.lse));
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

MB_CUDA_OPERATION(row_distance, mb_row_distance, MB_PART_SELECTION)
{
    if (args->n > 0)
        MB_WITH_TYPE(device->type, distance_kernel<T><<<blocks_for(args->n, 8), 256, 0, device->stream>>>(
                                       (const T *)args->a, (const T *)args->b, args->n, args->head_dim,
                                       args->distance, args->norm));
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

static cudaError_t count_keys(const mb_device *device, const mb_key_count *args, const int32_t *active, bool present)
{
    const mb_page_set *pages = args->pages;
    count_kernel<<<1, 32, 0, device->stream>>>(args->rows.batch, args->kv_heads, args->rows.prefix_len,
                                               pages ? pages->ids : NULL, pages ? pages->counts : NULL,
                                               pages ? pages->granularity : 1, pages ? pages->capacity : 0, active,
                                               present, args->tokens);
    return cudaGetLastError();
}

MB_CUDA_OPERATION(count_work, mb_key_count, MB_PART_SELECTION)
{
    return count_keys(device, args, args->active, true);
}

MB_CUDA_OPERATION(count_read, mb_key_count, MB_PART_SELECTION)
{
    return count_keys(device, args, args->active, false);
}
