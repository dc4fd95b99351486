/*
 * votes.cu - votes of query rows (arXiv 2602.14209 v1, algorithm 1): every row names its best k prefix keys;
 * per key how many named it, per head how many were named at all and how much softmax mass they hold.
 *
 * Here: which way a call goes, and the way for any type, head_dim and number of rows (fp32, short prefixes, chips
 * before sm_90a). One (sequence, KV head) at a time, in the caller's scratch: logits of all rows; each row's cut
 * line by radix selection; counts and mass per tile of keys, added up in tile order. The scratch is planned for
 * this way, R * N logits of a head; votes_sm90.cu takes as many heads at once as fit into the same bytes, one from
 * about N = 14 k on.
 */
#include "kernels/cuda/votes.cuh"

using namespace mb_cuda;

constexpr int KEYS = 64, VOTE_THREADS = 256;

struct VotesArgs {
    const void *q, *k;
    const float *lse;
    const int32_t *prefix_len, *active;
    int32_t rows, query_heads, kv_heads, group, dim, capacity, count, bh, budget;
    int64_t stride, votes_stride, written;
    float scale;
    float *logits;        /* [count][stride] */
    uint32_t *line_key;   /* [count] */
    int32_t *line_last;   /* [count]: equals up to this index belong; -2 = the row names nothing */
    double *partial;      /* [tiles][2] */
    float *votes, *stats;
};

__device__ __forceinline__ int prefix_of(const VotesArgs &a)
{
    return a.prefix_len[a.bh / a.kv_heads];
}

template <typename T> __global__ void __launch_bounds__(VOTE_THREADS) vote_logits(VotesArgs a)
{
    extern __shared__ float keys[]; /* [KEYS][dim+1] */
    int b = a.bh / a.kv_heads, h = a.bh % a.kv_heads, n = prefix_of(a), first = blockIdx.x * KEYS;
    if (first >= n)
        return;
    const T *k = (const T *)a.k + (int64_t)a.bh * a.capacity * a.dim;
    for (int i = threadIdx.x; i < KEYS * a.dim; i += VOTE_THREADS) {
        int j = first + i / a.dim;
        keys[i / a.dim * (a.dim + 1) + i % a.dim] = j < n ? load(k + (int64_t)j * a.dim + i % a.dim) : 0.0f;
    }
    __syncthreads();
    int j = threadIdx.x % KEYS;
    for (int i = threadIdx.x / KEYS; i < a.count; i += VOTE_THREADS / KEYS) {
        const T *q = (const T *)a.q + (((int64_t)b * a.rows + i / a.group) * a.query_heads + h * a.group + i % a.group) * a.dim;
        float s = 0.0f;
        for (int c = 0; c < a.dim; c++)
            s += load(q + c) * keys[j * (a.dim + 1) + c];
        if (first + j < n)
            a.logits[(int64_t)i * a.stride + first + j] = a.scale * s;
    }
}

/* One block a row: the key of its k-th best, and the index of the last equal that still belongs. */
__global__ void __launch_bounds__(512) vote_lines(VotesArgs a)
{
    __shared__ LineShared shared;
    uint32_t key;
    int32_t last;
    find_line<512>(a.logits + (int64_t)blockIdx.x * a.stride, prefix_of(a), a.budget, shared, &key, &last);
    if (threadIdx.x == 0) {
        a.line_key[blockIdx.x] = key;
        a.line_last[blockIdx.x] = last;
    }
}

/* One thread a key: its votes, and the mass that all rows put on it if it was named. */
__global__ void __launch_bounds__(VOTE_THREADS) vote_count(VotesArgs a)
{
    __shared__ double shared[2][VOTE_THREADS];
    int b = a.bh / a.kv_heads, h = a.bh % a.kv_heads, n = prefix_of(a);
    int64_t j = (int64_t)blockIdx.x * VOTE_THREADS + threadIdx.x;
    float votes = 0.0f;
    double mass = 0.0;
    for (int i = 0; j < n && i < a.count; i++) {
        uint32_t key = key_of(a.logits[(int64_t)i * a.stride + j]);
        votes += above_line(key, j, a.line_key[i], a.line_last[i]) ? 1.0f : 0.0f;
    }
    for (int i = 0; votes > 0.0f && i < a.count; i++) {
        float lse = a.lse[((int64_t)b * a.rows + i / a.group) * a.query_heads + h * a.group + i % a.group];
        mass += (double)expf(a.logits[(int64_t)i * a.stride + j] - lse);
    }
    if (j < a.written)
        a.votes[(int64_t)a.bh * a.votes_stride + j] = votes;
    shared[0][threadIdx.x] = votes > 0.0f ? 1.0 : 0.0;
    shared[1][threadIdx.x] = mass;
    for (int half = VOTE_THREADS / 2; half; half >>= 1) {
        __syncthreads();
        if ((int)threadIdx.x < half) {
            shared[0][threadIdx.x] += shared[0][threadIdx.x + half];
            shared[1][threadIdx.x] += shared[1][threadIdx.x + half];
        }
    }
    if (threadIdx.x == 0) {
        a.partial[2 * blockIdx.x] = shared[0][0];
        a.partial[2 * blockIdx.x + 1] = shared[1][0];
    }
}

__global__ void vote_stats(VotesArgs a, int tiles)
{
    double named = 0.0, mass = 0.0;
    for (int t = 0; t < tiles; t++) {
        named += a.partial[2 * t];
        mass += a.partial[2 * t + 1];
    }
    a.stats[2 * a.bh] = (float)named;
    a.stats[2 * a.bh + 1] = (float)(mass / (double)a.count);
}

/* Cuts the scratch; with base NULL it only counts. */
static size_t cut(const mb_attention *args, VotesArgs *a, char *base)
{
    size_t used = 0;
    auto take = [&](size_t bytes) {
        char *at = base ? base + used : NULL;
        used += (bytes + 255) / 256 * 256;
        return at;
    };
    a->count = args->rows.rows * (args->query_heads / args->kv.kv_heads);
    a->stride = (args->rows.max_prefix + 63) / 64 * 64;
    a->logits = (float *)take((size_t)a->count * a->stride * sizeof(float));
    a->line_key = (uint32_t *)take((size_t)a->count * sizeof(uint32_t));
    a->line_last = (int32_t *)take((size_t)a->count * sizeof(int32_t));
    a->partial = (double *)take((size_t)(a->stride / VOTE_THREADS + 1) * 2 * sizeof(double));
    return used;
}

extern "C" size_t mb_cuda_votes_scratch(const mb_attention *args, int32_t k)
{
    VotesArgs a = {};
    (void)k;
    return cut(args, &a, NULL);
}

extern "C" int mb_launch_votes(const mb_cuda_chip *chip, mb_type type, const mb_votes *call, cudaStream_t stream,
                               mb_error *err)
{
    const mb_attention *args = &call->attention;
    VotesArgs a = {};
    int heads = args->rows.batch * args->kv.kv_heads;
    if (!args->lse || args->kv.head_dim > 256 || args->mass_stride < args->rows.max_prefix || args->active)
        return mb_fail(
            err, MB_E_BUG,
            "votes: they need the log-sum-exp as input, head_dim %d up to 256, rows of %d entries (mass_stride "
            "%lld), and every KV head active",
            args->kv.head_dim, args->rows.max_prefix, (long long)args->mass_stride);
    size_t bytes = cut(args, &a, (char *)call->scratch);
    Problem p = problem_from(args);
    if (sm90_votes_serves(chip, type, p, call->k, bytes))
        return sm90_votes(chip, p, call, bytes, stream, err);
    a.q = args->q;
    a.k = args->kv.k;
    a.lse = args->lse;
    a.prefix_len = args->rows.prefix_len;
    a.rows = args->rows.rows;
    a.query_heads = args->query_heads;
    a.kv_heads = args->kv.kv_heads;
    a.group = args->query_heads / args->kv.kv_heads;
    a.dim = args->kv.head_dim;
    a.capacity = args->kv.capacity;
    a.budget = call->k;
    a.votes_stride = args->mass_stride;
    a.written = a.stride < args->mass_stride ? a.stride : args->mass_stride;
    a.scale = 1.0f / sqrtf((float)a.dim);
    a.votes = call->votes;
    a.stats = call->stats;
    size_t shared = (size_t)KEYS * (a.dim + 1) * sizeof(float);
    cudaError_t status = cudaSuccess;
    MB_WITH_TYPE(type, status = cudaFuncSetAttribute(vote_logits<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     (int)shared));
    int tiles = (int)blocks_for(a.stride, VOTE_THREADS);
    for (int bh = 0; bh < heads && status == cudaSuccess; bh++) {
        a.bh = bh;
        if (args->rows.max_prefix > 0) {
            MB_WITH_TYPE(type, vote_logits<T><<<blocks_for(args->rows.max_prefix, KEYS), VOTE_THREADS, shared, stream>>>(a));
        }
        vote_lines<<<a.count, 512, 0, stream>>>(a);
        vote_count<<<tiles, VOTE_THREADS, 0, stream>>>(a);
        vote_stats<<<1, 1, 0, stream>>>(a, tiles);
        status = cudaGetLastError();
    }
    return status == cudaSuccess
               ? MB_OK
               : mb_fail(err, MB_E_SYSTEM, "CUDA: votes failed: %s", cudaGetErrorString(status));
}
