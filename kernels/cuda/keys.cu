/*
 * keys.cu - what prefix keys are by themselves, without queries: their length, their distance to the mean key,
 * their cosine with the mean unit key. Same definitions as the CPU's keys.c; sums in double, in a fixed order.
 */
#include "kernels/cuda/common.cuh"

using namespace mb_cuda;

namespace {

constexpr int WARPS = 8, MEAN_THREADS = 1024;

__device__ double warp_total(double x)
{
    for (int step = 16; step > 0; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

/* A warp a key. */
template <typename T>
__global__ void measure_kernel(int measure, int kv_heads, int64_t capacity, int dim, const int32_t *prefix_len,
                               const T *k, const float *mean, float *scores, int64_t stride)
{
    int64_t bh = blockIdx.y, j = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (j >= prefix_len[bh / kv_heads])
        return;
    const T *key = k + (bh * capacity + j) * dim;
    const float *own = mean + bh * dim;
    double squares = 0.0, product = 0.0, others = 0.0;
    for (int c = threadIdx.x % 32; c < dim; c += 32) {
        double x = (double)load(key + c), m = measure == MB_KEY_NORM ? 0.0 : (double)own[c];
        double d = measure == MB_KEY_DISTANCE ? x - m : x;
        squares += d * d;
        product += x * m;
        others += m * m;
    }
    squares = warp_total(squares);
    product = warp_total(product);
    others = warp_total(others);
    if (threadIdx.x % 32)
        return;
    double lengths = sqrt(squares) * sqrt(others), cosine = lengths != 0.0 ? product / lengths : 0.0;
    scores[bh * stride + j] = (float)(measure == MB_KEY_COSINE ? cosine : sqrt(squares));
}

/* A block a KV head: thread (slice, channel) sums every slices-th key, then slices are added in order. `lengths`:
 * NULL, or what each key is divided by. */
template <typename T>
__global__ void mean_kernel(int kv_heads, int64_t capacity, int dim, const int32_t *prefix_len, const T *k,
                            const float *lengths, int64_t stride, float *mean)
{
    __shared__ double partial[MEAN_THREADS];
    int64_t bh = blockIdx.x, n = prefix_len[bh / kv_heads];
    int slices = blockDim.x / dim, c = threadIdx.x % dim, slice = threadIdx.x / dim;
    double sum = 0.0;
    for (int64_t j = slice; slice < slices && j < n; j += slices) {
        double length = lengths ? (double)lengths[bh * stride + j] : 1.0;
        sum += length != 0.0 ? (double)load(k + (bh * capacity + j) * dim + c) / length : 0.0;
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (slice)
        return;
    for (int s = 1; s < slices; s++)
        sum += partial[s * dim + c];
    mean[bh * dim + c] = n > 0 ? (float)(sum / (double)n) : 0.0f;
}

template <typename T> void measure(mb_device *device, const mb_key_measures *args, int kind)
{
    const mb_kv *kv = &args->kv;
    dim3 grid(blocks_for(args->scores.max_prefix, WARPS), args->scores.batch * kv->kv_heads);
    measure_kernel<<<grid, WARPS * 32, 0, device->stream>>>(kind, kv->kv_heads, kv->capacity, kv->head_dim,
                                                            args->scores.prefix_len, (const T *)kv->k, args->mean,
                                                            args->scores.values, args->scores.stride);
}

template <typename T> void measure_all(mb_device *device, const mb_key_measures *args)
{
    const mb_kv *kv = &args->kv;
    bool unit = args->measure == MB_KEY_COSINE;
    if (unit) /* the lengths stand in the scores until the mean is known */
        measure<T>(device, args, MB_KEY_NORM);
    if (args->measure != MB_KEY_NORM)
        mean_kernel<<<args->scores.batch * kv->kv_heads, MEAN_THREADS, 0, device->stream>>>(
            kv->kv_heads, kv->capacity, kv->head_dim, args->scores.prefix_len, (const T *)kv->k,
            unit ? args->scores.values : NULL, args->scores.stride, args->mean);
    measure<T>(device, args, args->measure);
}

/* Grid: (pieces of a head's slots, heads, keys and values); V: what a row is whole numbers of. n: of V. */
template <typename V>
__global__ void slots_kernel(const V *k, const V *v, V *to_k, V *to_v, int64_t from_head, int64_t to_head, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        (blockIdx.z ? to_v : to_k)[blockIdx.y * to_head + i] = (blockIdx.z ? v : k)[blockIdx.y * from_head + i];
}

template <typename V> void copy_slots(mb_device *device, const mb_slots_copy *args, int64_t row)
{
    const int64_t width = row / (int64_t)sizeof(V), n = args->n * width;
    dim3 grid(blocks_for(n, 256), (unsigned)(args->from.batch * args->from.kv_heads), 2);
    slots_kernel<<<grid, 256, 0, device->stream>>>(
        (const V *)args->from.k + args->first * width, (const V *)args->from.v + args->first * width,
        (V *)args->to.k + args->into * width, (V *)args->to.v + args->into * width, args->from.capacity * width,
        args->to.capacity * width, n);
}

} // namespace

MB_CUDA_OPERATION(slots_copy, mb_slots_copy, MB_PART_COPY)
{
    const int64_t row = (int64_t)args->from.head_dim * (int64_t)mb_type_size(device->type);
    if (args->first < 0 || args->into < 0 || args->n < 0 || args->first + args->n > args->from.capacity ||
        args->into + args->n > args->to.capacity || args->from.batch * args->from.kv_heads > 65535)
        return cudaErrorInvalidValue;
    if (args->n > 0 && row % 16 == 0)
        copy_slots<uint4>(device, args, row);
    else if (args->n > 0)
        copy_slots<uint16_t>(device, args, row);
    return cudaGetLastError();
}

MB_CUDA_OPERATION(key_measures, mb_key_measures, MB_PART_SELECTION)
{
    if (args->kv.head_dim > 256 || (args->measure != MB_KEY_NORM && !args->mean))
        return cudaErrorInvalidValue;
    if (args->scores.max_prefix > 0)
        MB_WITH_TYPE(device->type, measure_all<T>(device, args));
    return cudaGetLastError();
}
