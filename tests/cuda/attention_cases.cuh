/*
 * attention_cases.cuh - the correctness half of attention_bench.cu: device buffers of one case, the reference
 * kernels, and the list of cases.
 *
 * The reference takes an explicit list of cache slots per (sequence, KV head) that the host writes out from the
 * definition in kernels.h, and works in double; it shares nothing with the kernels under test.
 */
#ifndef ATTENTION_CASES_CUH
#define ATTENTION_CASES_CUH

#include "kernels/cuda/attention.cuh"

#include <cuda_bf16.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define CHECK(call)                                                                                               \
    do {                                                                                                          \
        cudaError_t code_ = (call);                                                                               \
        if (code_ != cudaSuccess) {                                                                               \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(code_));                        \
            exit(1);                                                                                              \
        }                                                                                                         \
    } while (0)

static void die(const char *text)
{
    fprintf(stderr, "%s\n", text);
    exit(1);
}

static uint64_t random_state = 12345;
static double random_unit(void)
{
    uint64_t z = (random_state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}
[[maybe_unused]] static int random_below(int n)
{
    return (int)(random_unit() * n);
}

struct Case {
    mb_type type = MB_BF16;
    int query_heads = 7, kv_heads = 1, batch = 1, rows = 32, head_dim = 128, capacity = 64, block_keys = 32;
    int granularity = 1, page_capacity = 0;
    int rising =
        0; /* > 0: keys from this slot on are four times as long, so that the maxima of later tiles lead */
    std::vector<int32_t> prefix;
};

/* Normal numbers from a counter hash. */
static __device__ float hash_normal(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + i * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    float u = ((float)(uint32_t)z + 1.0f) * 0x1.0p-32f, v = (float)(uint32_t)(z >> 32) * 0x1.0p-32f;
    return sqrtf(-2.0f * logf(fminf(u, 1.0f))) * cosf(6.2831853f * v);
}

static __device__ void put(float *x, float value)
{
    *x = value;
}
static __device__ void put(__nv_bfloat16 *x, float value)
{
    *x = __float2bfloat16(value);
}
static __device__ double get(const float *x)
{
    return *x;
}
static __device__ double get(const __nv_bfloat16 *x)
{
    return __bfloat162float(*x);
}

template <typename T> __global__ void fill_normal(T *x, size_t n, uint64_t seed, float scale)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x)
        put(x + i, hash_normal(seed, i) * scale);
}

template <typename T> __global__ void raise_keys(T *x, int from, int capacity, int head_dim)
{
    T *base = x + (size_t)blockIdx.x * capacity * head_dim;
    for (size_t i = (size_t)from * head_dim + threadIdx.x; i < (size_t)capacity * head_dim; i += blockDim.x)
        put(base + i, (float)(4.0 * get(base + i)));
}

/* NaN into the slots at and past `visible[b]`. */
template <typename T>
__global__ void poison_tail(T *x, const int32_t *visible, int kv_heads, int capacity, int head_dim)
{
    int head = (int)blockIdx.x, from = visible[head / kv_heads];
    T *base = x + (size_t)head * capacity * head_dim;
    for (size_t i = (size_t)from * head_dim + threadIdx.x; i < (size_t)capacity * head_dim; i += blockDim.x)
        put(base + i, NAN);
}

/* States over explicit lists. Grid: states of [batch][rows][query_heads]. limit: NULL or keys a row may see. */
template <typename T>
__global__ void reference(const T *q, const T *k, const T *v, const int32_t *lists, const int32_t *counts,
                          int stride, int rows, int query_heads, int kv_heads, int capacity, int head_dim,
                          int only_sequence, const int32_t *limit, double *out, double *lse)
{
    __shared__ double part[128], top_shared;
    int state = (int)blockIdx.x, a = state % query_heads, b = state / query_heads / rows;
    int row = state / query_heads % rows;
    if (only_sequence >= 0)
        b = only_sequence;
    int h = a / (query_heads / kv_heads);
    int list = only_sequence >= 0 ? 0 : b * kv_heads + h;
    const int32_t *slots = lists + (size_t)list * stride;
    int count = limit ? min(counts[list], limit[row]) : counts[list];
    const T *keys = k + (size_t)(b * kv_heads + h) * capacity * head_dim;
    const T *values = v + (size_t)(b * kv_heads + h) * capacity * head_dim;
    double scale = 1.0 / sqrt((double)head_dim), top = -INFINITY, sum = 0.0;
    auto logit = [&](int j) {
        double s = 0.0;
        for (int c = 0; c < head_dim; c++)
            s += get(q + (size_t)state * head_dim + c) * get(keys + (size_t)slots[j] * head_dim + c);
        return s * scale;
    };
    for (int j = (int)threadIdx.x; j < count; j += 128)
        top = fmax(top, logit(j));
    part[threadIdx.x] = top;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < 128; i++)
            top = fmax(top, part[i]);
        top_shared = top;
    }
    __syncthreads();
    top = top_shared;
    double o[4] = {0.0, 0.0, 0.0, 0.0};
    for (int first = 0; first < count; first += 128) {
        __syncthreads();
        part[threadIdx.x] = first + (int)threadIdx.x < count ? exp(logit(first + (int)threadIdx.x) - top) : 0.0;
        __syncthreads();
        for (int j = 0; j < 128 && first + j < count; j++) {
            sum += part[j];
            for (int c = (int)threadIdx.x, i = 0; c < head_dim; c += 128, i++)
                o[i] += part[j] * get(values + (size_t)slots[first + j] * head_dim + c);
        }
    }
    for (int c = (int)threadIdx.x, i = 0; c < head_dim; c += 128, i++)
        out[(size_t)state * head_dim + c] = count ? o[i] / sum : 0.0;
    if (threadIdx.x == 0)
        lse[state] = count ? top + log(sum) : -INFINITY;
}

/* Mass of prefix keys. Grid: (keys / 128, batch * kv_heads). */
template <typename T>
__global__ void reference_mass(const T *q, const T *k, const double *lse, const float *weight,
                               const int32_t *prefix, int rows, int query_heads, int kv_heads, int capacity,
                               int head_dim, int stride, double *mass)
{
    int head = (int)blockIdx.y, b = head / kv_heads, h = head % kv_heads, group = query_heads / kv_heads;
    int j = (int)(blockIdx.x * 128 + threadIdx.x);
    if (j >= stride)
        return;
    double sum = 0.0, total = 0.0;
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < group; g++) {
            double w = weight ? weight[b * rows + r] : 1.0, s = 0.0;
            size_t state = ((size_t)b * rows + r) * query_heads + h * group + g;
            total += w;
            if (j >= prefix[b])
                continue;
            for (int c = 0; c < head_dim; c++)
                s += get(q + state * head_dim + c) * get(k + ((size_t)head * capacity + j) * head_dim + c);
            sum += w * exp(s / sqrt((double)head_dim) - lse[state]);
        }
    mass[(size_t)head * stride + j] = total > 0.0 ? sum / total : 0.0;
}

/* Device buffers of one case. */
struct Device {
    void *q, *k, *v, *out, *workspace = NULL;
    float *lse, *mass, *tile_mass, *weight;
    int32_t *prefix, *active;
    size_t q_elements, kv_elements, states, workspace_bytes = 0;
    int mass_stride;

    Device(const Case &c, float scale)
    {
        size_t size = mb_type_size(c.type);
        states = (size_t)c.batch * c.rows * c.query_heads;
        q_elements = states * c.head_dim;
        kv_elements = (size_t)c.batch * c.kv_heads * c.capacity * c.head_dim;
        mass_stride = (c.capacity + 63) / 64 * 64;
        CHECK(cudaMalloc(&q, q_elements * size + 256));
        CHECK(cudaMalloc(&out, q_elements * size + 256));
        CHECK(cudaMalloc(&k, kv_elements * size));
        CHECK(cudaMalloc(&v, kv_elements * size));
        CHECK(cudaMalloc(&lse, states * 4));
        CHECK(cudaMalloc(&mass, (size_t)c.batch * c.kv_heads * mass_stride * 4));
        CHECK(cudaMalloc(&tile_mass, (size_t)c.batch * c.kv_heads * mass_stride / 16));
        CHECK(cudaMalloc(&weight, (size_t)c.batch * c.rows * 4));
        CHECK(cudaMalloc(&prefix, (size_t)c.batch * 4));
        CHECK(cudaMalloc(&active, (size_t)c.batch * c.kv_heads * 4));
        CHECK(cudaMemcpy(prefix, c.prefix.data(), (size_t)c.batch * 4, cudaMemcpyHostToDevice));
        fill(c, q, q_elements, scale);
        fill(c, k, kv_elements, scale);
        fill(c, v, kv_elements, 1.0f);
        if (c.rising && c.type == MB_BF16)
            raise_keys<<<c.batch * c.kv_heads, 256>>>((__nv_bfloat16 *)k, c.rising, c.capacity, c.head_dim);
        else if (c.rising)
            raise_keys<<<c.batch * c.kv_heads, 256>>>((float *)k, c.rising, c.capacity, c.head_dim);
    }
    ~Device()
    {
        void *all[] = {q, k, v, out, workspace, lse, mass, tile_mass, weight, prefix, active};
        for (void *p : all)
            cudaFree(p);
    }
    void fill(const Case &c, void *x, size_t n, float scale)
    {
        uint64_t seed = (uint64_t)(random_unit() * 0x1.0p53);
        if (c.type == MB_BF16)
            fill_normal<<<1024, 256>>>((__nv_bfloat16 *)x, n, seed, scale);
        else
            fill_normal<<<1024, 256>>>((float *)x, n, seed, scale);
        CHECK(cudaGetLastError());
    }
    void reserve(size_t bytes)
    {
        cudaFree(workspace);
        workspace = NULL;
        workspace_bytes = bytes;
        if (bytes) {
            CHECK(cudaMalloc(&workspace, bytes));
            CHECK(cudaMemset(workspace, 0xff, bytes));
        }
    }
    mb_kv cache(const Case &c) const
    {
        return {k, v, c.batch, c.kv_heads, c.capacity, c.head_dim};
    }
    mb_attention arguments(const Case &c, mb_scope scope) const
    {
        mb_attention args;
        memset(&args, 0, sizeof args);
        args.rows.batch = c.batch;
        args.rows.rows = c.rows;
        args.rows.prefix_len = prefix;
        for (int32_t n : c.prefix)
            args.rows.max_prefix = n > args.rows.max_prefix ? n : args.rows.max_prefix;
        args.rows.block_keys = c.block_keys;
        args.kv = cache(c);
        args.query_heads = c.query_heads;
        args.q = q;
        args.scope = scope;
        args.out = out;
        args.lse = lse;
        args.mass_stride = mass_stride;
        args.tile_stride = mass_stride / 64;
        return args;
    }
};

/* Runs every `step`-th case (1: all); returns the number of failures. */
int check_all(mb_cuda_chip *chip, int step);

#endif
