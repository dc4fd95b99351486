/*
 * votes_check.cu - the two ways to count votes on a GPU against each other, at real lengths: whole-number queries
 * and keys have exact logits in any order of addition, so votes must be equal to the last one, and thousands of
 * ties try the rule that the lower index wins. Needs a GPU with sm_90a; not part of `make check`.
 *
 *      cc -c -D_GNU_SOURCE -I. base/text.c
 *      nvcc -O3 -std=c++17 -gencode arch=compute_90a,code=sm_90a -I. tests/cuda/votes_check.cu \
 *          kernels/cuda/{attend,attend_mma,attend_pages,attend_plain,attend_sm90,mass_mma,mass_sm90,merge}.cu \
 *          kernels/cuda/{prefill_sm90,flash_128,flash_96,flash_256,votes,votes_sm90}.cu text.o -o votes_check
 *      ./votes_check
 *
 * Scratch and outputs are filled with NaN before every call; slots behind the prefix hold NaN; every call runs
 * twice and must give the same bits. The small cases, against a reference of its own, are in tests/kernels.
 */
#include "kernels/cuda/backend.h"

#include <cuda_bf16.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define CHECK(call)                                                                                               \
    do {                                                                                                          \
        cudaError_t status = (call);                                                                              \
        if (status != cudaSuccess) {                                                                              \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(status));                       \
            exit(1);                                                                                              \
        }                                                                                                         \
    } while (0)

struct Case {
    const char *name;
    int batch, kv_heads, group, rows, k, most; /* most: entries are whole numbers -most .. most */
    int period;                                /* 0, or key j equals key j % period */
    int nan;                                   /* 0, or every nan-th key holds NaN */
    int slack, prefix[4];
};

static const Case cases[] = {
    {"28/4 128K", 1, 4, 7, 32, 512, 3, 0, 0, 0, {131089}},
    {"28/4 128K, many ties", 1, 4, 7, 32, 512, 1, 0, 0, 0, {131072}},
    {"28/4 128K, k 2048", 1, 4, 7, 32, 2048, 3, 0, 0, 0, {131072}},
    {"12/2 ragged", 6, 2, 6, 32, 300, 3, 0, 0, 50, {40000, 20001, 63, 0}},
    {"32/8 32K, k 1000", 1, 8, 4, 32, 1000, 2, 0, 0, 3, {32768}},
    {"batch 16", 16, 4, 7, 32, 600, 3, 0, 0, 0, {40000, 39937, 36000, 38000}},
    {"G1", 2, 3, 1, 32, 100, 3, 0, 0, 0, {20000, 9000}},
    {"256 rows", 1, 2, 8, 32, 512, 3, 0, 0, 0, {30000}},
    {"80 rows, k 1", 1, 2, 5, 16, 1, 3, 0, 0, 0, {10000}},
    {"repeated keys", 1, 2, 7, 32, 512, 3, 16, 0, 0, {20000}},
    {"k over n", 2, 2, 7, 32, 2500, 3, 0, 0, 60000, {3000, 2400}},
    {"NaN keys", 1, 2, 7, 32, 500, 3, 0, 7, 0, {20000}},
    {"few numbers", 1, 1, 7, 32, 5000, 3, 0, 2, 60000, {9000}},
};

__device__ static uint32_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9ull;
    return (uint32_t)(x >> 32);
}

/* Rows of 128 whole numbers; rows behind `prefix` of each `capacity` are NaN; keys may repeat. */
__global__ static void make_values(__nv_bfloat16 *to, int64_t rows, int capacity, const int *prefix, int heads,
                                   int most, int period, int nan, uint64_t seed)
{
    int64_t row = blockIdx.x * (int64_t)blockDim.y + threadIdx.y, at = row;
    if (row >= rows)
        return;
    int slot = (int)(row % capacity);
    bool bad = prefix && (slot >= prefix[row / capacity / heads] || (nan && slot % nan == 1));
    if (period)
        at = row - slot + slot % period;
    for (int c = threadIdx.x; c < 128; c += blockDim.x) {
        float x = (float)((int)(mix(seed * 1000003 + at * 128 + c) % (2 * most + 1)) - most);
        to[row * 128 + c] = __float2bfloat16_rn(bad && c == 5 ? NAN : x);
    }
}

struct Result {
    std::vector<float> votes, stats;
    float ms;
};

static Result run(const mb_cuda_chip *chip, const mb_attention *args, int k, int heads)
{
    Result r;
    mb_error err = {0};
    size_t bytes = mb_cuda_votes_scratch(args, k), count = (size_t)heads * args->mass_stride;
    float *votes, *stats, ms;
    void *scratch;
    cudaEvent_t a, b;
    CHECK(cudaMalloc(&votes, count * 4));
    CHECK(cudaMalloc(&stats, (size_t)heads * 8));
    CHECK(cudaMalloc(&scratch, bytes));
    CHECK(cudaEventCreate(&a));
    CHECK(cudaEventCreate(&b));
    for (int round = 0; round < 2; round++) {
        std::vector<float> v(count), s(heads * 2);
        CHECK(cudaMemset(votes, 0xff, count * 4));
        CHECK(cudaMemset(stats, 0xff, (size_t)heads * 8));
        CHECK(cudaMemset(scratch, 0xff, bytes));
        mb_votes call = {*args, k, votes, stats, scratch};
        CHECK(cudaEventRecord(a));
        if (mb_launch_votes(chip, MB_BF16, &call, 0, &err) != 0) {
            fprintf(stderr, "votes: %s\n", err.text);
            exit(1);
        }
        CHECK(cudaEventRecord(b));
        CHECK(cudaDeviceSynchronize());
        CHECK(cudaEventElapsedTime(&ms, a, b));
        r.ms = ms;
        CHECK(cudaMemcpy(v.data(), votes, count * 4, cudaMemcpyDeviceToHost));
        CHECK(cudaMemcpy(s.data(), stats, (size_t)heads * 8, cudaMemcpyDeviceToHost));
        if (round &&
            (memcmp(v.data(), r.votes.data(), count * 4) || memcmp(s.data(), r.stats.data(), s.size() * 4)))
            puts("FAILED: other bits in the second run");
        r.votes = v;
        r.stats = s;
    }
    cudaFree(votes);
    cudaFree(stats);
    cudaFree(scratch);
    return r;
}

static int check(const mb_cuda_chip *chip, const Case &c)
{
    mb_cuda_chip plain = *chip;
    plain.allow_sm90 = 0;
    std::vector<int> prefix(c.batch);
    int longest = 0, heads = c.batch * c.kv_heads, failed = 0;
    for (int b = 0; b < c.batch; b++) {
        prefix[b] = c.batch == 1 ? c.prefix[0] : c.prefix[b % (c.prefix[2] || c.prefix[3] ? 4 : 2)];
        longest = prefix[b] > longest ? prefix[b] : longest;
    }
    int capacity = longest + c.slack + 40;
    int64_t keys = (int64_t)heads * capacity, queries = (int64_t)c.batch * c.rows * c.kv_heads * c.group;
    __nv_bfloat16 *k, *q;
    int *lengths;
    float *lse;
    std::vector<float> normal(queries);
    for (int64_t i = 0; i < queries; i++)
        normal[i] = 14.0f + (float)(i % 5);
    CHECK(cudaMalloc(&k, keys * 256));
    CHECK(cudaMalloc(&q, queries * 256));
    CHECK(cudaMalloc(&lse, queries * 4));
    CHECK(cudaMalloc(&lengths, c.batch * 4));
    CHECK(cudaMemcpy(lengths, prefix.data(), c.batch * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(lse, normal.data(), queries * 4, cudaMemcpyHostToDevice));
    make_values<<<(unsigned)((keys + 7) / 8), dim3(32, 8)>>>(k, keys, capacity, lengths, c.kv_heads, c.most,
                                                             c.period, c.nan, 1);
    make_values<<<(unsigned)((queries + 7) / 8), dim3(32, 8)>>>(q, queries, 1, NULL, 1, c.most, 0, 0, 2);
    mb_attention args;
    memset(&args, 0, sizeof args);
    args.rows.batch = args.kv.batch = c.batch;
    args.rows.rows = args.rows.block_keys = c.rows;
    args.rows.prefix_len = lengths;
    args.rows.max_prefix = longest + c.slack;
    args.kv.k = args.kv.v = k;
    args.kv.kv_heads = c.kv_heads;
    args.kv.capacity = capacity;
    args.kv.head_dim = 128;
    args.query_heads = c.kv_heads * c.group;
    args.q = q;
    args.lse = lse;
    args.mass_stride = (args.rows.max_prefix + 63) / 64 * 64 + 64;
    Result want = run(&plain, &args, c.k, heads), got = run(chip, &args, c.k, heads);
    int64_t cast = 0;
    for (int h = 0; h < heads; h++) {
        for (int64_t j = 0; j < args.mass_stride; j++) {
            float x = got.votes[h * args.mass_stride + j], y = want.votes[h * args.mass_stride + j];
            bool same = x == y || (isnan(x) && isnan(y) && j >= args.mass_stride - 64);
            if (!same && failed++ < 3)
                printf("  head %d: key %lld has %g votes, not %g\n", h, (long long)j, x, y);
            cast += x > 0.0f ? (int64_t)x : 0;
        }
        for (int i = 0; i < 2; i++) {
            float x = got.stats[2 * h + i], y = want.stats[2 * h + i];
            bool same = fabsf(x - y) <= (i ? 1e-4f * fabsf(y) : 0.0f) || (isnan(x) && isnan(y));
            if (!same && failed++ < 3)
                printf("  head %d: stats[%d] is %.8g, not %.8g\n", h, i, x, y);
        }
    }
    printf("%-24s %s  %lld votes, union %g, mass %g; %.3f ms, plain %.3f ms\n", c.name, failed ? "FAILED" : "ok",
           (long long)cast, got.stats[0], got.stats[1], got.ms, want.ms);
    cudaFree(k);
    cudaFree(q);
    cudaFree(lse);
    cudaFree(lengths);
    return failed != 0;
}

int main(int argc, char **argv)
{
    mb_cuda_chip chip;
    mb_error err = {0};
    int failed = 0;
    size_t count = sizeof cases / sizeof *cases, last = argc > 1 ? (size_t)atoi(argv[1]) : count;
    if (mb_cuda_chip_probe(0, &chip, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (size_t i = argc > 1 ? last - 1 : 0; i < count && i < last; i++)
        failed += check(&chip, cases[i]);
    printf("%d of %zu cases failed\n", failed, argc > 1 ? 1 : count);
    return failed != 0;
}
