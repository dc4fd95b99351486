/*
 * attend.cu - the launchers of attention.cuh: checks the arguments, lays out the workspace, chooses the kernel.
 *
 * Three families serve the same problem: sm_90a (bf16, head_dim 64, 80, 96, 128, 256), mma.sync (bf16 and f16,
 * head_dim 64 or 128), plain (anything else). Which one runs depends only on the chip, the type and the shapes, never on the
 * data, so two runs take the same path. Workspace: [lse][partial outputs][their lse][per-row tile sums], each part
 * present only when it is needed.
 */
#include "kernels/cuda/attention_common.cuh"

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace mb_cuda
{

int check_launch(const char *what, mb_error *err)
{
    cudaError_t code = cudaGetLastError();
    if (code == cudaSuccess)
        return MB_OK;
    return mb_fail(err, MB_E_SYSTEM, "CUDA: %s failed: %s", what, cudaGetErrorString(code));
}

Problem problem_from(const mb_attention *args)
{
    Problem p;
    memset(&p, 0, sizeof p);
    p.q = args->q;
    p.k = args->kv.k;
    p.v = args->kv.v;
    p.out = args->out;
    p.lse = args->lse;
    p.prefix_len = args->rows.prefix_len;
    p.active = args->active;
    p.row_weight = args->row_weight;
    p.mass = args->mass;
    p.tile_mass = args->tile_mass;
    p.mass_stride = args->mass_stride;
    p.tile_stride = args->tile_stride;
    p.batch = args->rows.batch;
    p.rows = args->rows.rows;
    p.query_heads = args->query_heads;
    p.kv_heads = args->kv.kv_heads;
    p.group = args->query_heads / args->kv.kv_heads;
    p.packed = p.group * p.rows;
    p.capacity = args->kv.capacity;
    p.head_dim = args->kv.head_dim;
    p.block_keys = args->rows.block_keys;
    p.span = args->scope;
    p.max_prefix = args->rows.max_prefix < args->kv.capacity ? args->rows.max_prefix : args->kv.capacity;
    p.splits = 1;
    if (args->pages) {
        p.page_ids = args->pages->ids;
        p.page_counts = args->pages->counts;
        p.page_capacity = args->pages->capacity;
        while ((1 << p.page_shift) < args->pages->granularity)
            p.page_shift++;
    }
    p.scale = 1.0f / sqrtf((float)p.head_dim);
    p.scale_log2 = p.scale * LOG2E;
    return p;
}

namespace
{

size_t aligned(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

int check(mb_type type, const mb_attention *a, bool sparse, mb_error *err)
{
    if (type != MB_F32 && type != MB_BF16 && type != MB_F16)
        return mb_fail(err, MB_E_BUG, "CUDA attention: storage type %d is neither fp32 nor bf16 nor f16", type);
    if (a->kv.kv_heads < 1 || a->query_heads < 1 || a->query_heads % a->kv.kv_heads != 0)
        return mb_fail(err, MB_E_BUG, "CUDA attention: %d query heads do not divide into %d KV heads",
                       a->query_heads, a->kv.kv_heads);
    if (a->kv.head_dim < 1 || a->kv.head_dim > 512)
        return mb_fail(err, MB_E_BUG, "CUDA attention: head_dim %d is not in 1..512", a->kv.head_dim);
    if (a->rows.batch < 0 || a->rows.rows < 0 || a->rows.batch > a->kv.batch)
        return mb_fail(err, MB_E_BUG, "CUDA attention: batch %d (cache: %d), rows %d", a->rows.batch, a->kv.batch,
                       a->rows.rows);
    if ((int64_t)a->rows.batch * a->kv.kv_heads > 65535)
        return mb_fail(err, MB_E_BUG, "CUDA attention: batch * KV heads is over 65535");
    if (sparse) {
        int32_t g = a->pages ? a->pages->granularity : 0;
        if (g != 1 && g != 16 && g != 32 && g != 64 && g != 128)
            return mb_fail(err, MB_E_BUG, "CUDA attention: page granularity %d", g);
    }
    return MB_OK;
}

/* Where the parts of a workspace begin; `needed` is what the call cannot do without, `total` adds the per-row
 * tile sums, without which tile masses cost a second pass over the keys. */
struct Layout {
    size_t lse, part_out, part_lse, tile_part, needed, total;
    bool sm90;
};

/* The sm_90a kernels are made for long key ranges; a few hundred keys are merged faster by one mma.sync cluster.
 */
bool prefers_sm90(const mb_cuda_chip *chip, mb_type type, const Problem &p)
{
    bool longer = p.span != MB_SCOPE_BLOCK && p.max_prefix >= 1024;
    return (longer || !mma_serves(type, p.head_dim)) && sm90_serves(chip, type, p);
}

Layout layout(const mb_cuda_chip *chip, mb_type type, const mb_attention *args, bool sparse, Problem *p)
{
    Layout at = {};
    bool masses = !sparse && (args->mass || args->tile_mass);
    at.sm90 = !sparse && prefers_sm90(chip, type, *p);
    at.part_out = masses && !args->lse ? aligned((size_t)p->batch * p->rows * p->query_heads * 4) : 0;
    at.part_lse = at.tile_part = at.part_out;
    if (at.sm90) {
        at.tile_part = at.part_out + aligned(sm90_partial_bytes(chip, *p));
    } else if (mma_serves(type, p->head_dim)) {
        int64_t dense = (p->span == MB_SCOPE_BLOCK ? 0 : (int64_t)p->max_prefix) + p->block_keys;
        p->splits = sparse ? pages_splits(chip, *p) : mma_splits(chip, *p, dense);
        if (p->splits > 1 && !mma_cluster_merges(chip, p->splits)) {
            size_t states = (size_t)p->batch * p->kv_heads * p->splits * p->packed;
            at.part_lse = at.part_out + aligned(states * p->head_dim * 4);
            at.tile_part = at.part_lse + aligned(states * 4);
        }
    }
    at.needed = at.total = at.tile_part;
    if (at.sm90 && args->tile_mass)
        at.total += aligned(sm90_tile_bytes(*p));
    return at;
}

int bind(Problem *p, const Layout &at, void *workspace, size_t bytes, mb_error *err)
{
    if (at.needed > bytes || (at.needed > 0 && !workspace))
        return mb_fail(err, MB_E_BUG, "CUDA attention: the workspace has %zu bytes, the call needs %zu", bytes,
                       at.needed);
    char *base = (char *)workspace;
    if (!p->lse && at.part_out > at.lse)
        p->lse = (float *)(base + at.lse);
    p->part_out = (float *)(base + at.part_out);
    p->part_lse = (float *)(base + at.part_lse);
    if (at.total > at.needed && at.total <= bytes)
        p->tile_part = (float *)(base + at.tile_part);
    return MB_OK;
}

int run_mass(const mb_cuda_chip *chip, mb_type type, const Problem &p, cudaStream_t stream, mb_error *err)
{
    if (p.batch == 0 || p.packed == 0 || p.max_prefix == 0)
        return MB_OK;
    if (!p.tile_mass && sm90_mass_serves(chip, type, p))
        return sm90_mass(chip, p, stream, err);
    if (mma_serves(type, p.head_dim))
        return mma_mass(type, p, stream, err);
    return plain_mass(type, p, stream, err);
}

} /* namespace */
} /* namespace mb_cuda */

using namespace mb_cuda;

/* The one place that reads MB_FORCE_GENERIC. */
static int force_generic(mb_cuda_chip *chip, mb_error *err)
{
    const char *wish = getenv("MB_FORCE_GENERIC");
    const int most_shared = 163 * 1024; /* of a block on an sm_80 */
    if (!wish || strcmp(wish, "") == 0 || strcmp(wish, "0") == 0)
        return MB_OK;
    if (strcmp(wish, "1") != 0)
        return mb_fail(err, MB_E_INPUT, "MB_FORCE_GENERIC is \"%.40s\": use 1, or 0 for the GPU's own kernels", wish);
    chip->generic = 1;
    chip->capability = chip->capability > 80 ? 80 : chip->capability;
    chip->shared_bytes = chip->shared_bytes > most_shared ? most_shared : chip->shared_bytes;
    return MB_OK;
}

int mb_cuda_chip_probe(int ordinal, mb_cuda_chip *chip, mb_error *err)
{
    memset(chip, 0, sizeof *chip);
    chip->ordinal = ordinal;
    int major = 0, minor = 0;
    cudaSetDevice(ordinal);
    cudaDeviceGetAttribute(&chip->multiprocessors, cudaDevAttrMultiProcessorCount, ordinal);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal);
    cudaDeviceGetAttribute(&chip->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal);
    chip->capability = 10 * major + minor;
    chip->allow_sm90 = 1;
    int rc = check_launch("asking for the device's properties", err);
    if (rc == MB_OK && chip->capability < 80)
        return mb_fail(err, MB_E_INPUT,
                       "GPU %d has compute capability %d.%d; the CUDA engine needs 8.0 or newer: use --device cpu",
                       ordinal, major, minor);
    if (rc == MB_OK)
        rc = force_generic(chip, err);
    if (rc == MB_OK)
        rc = mma_setup(err);
    if (rc == MB_OK)
        rc = pages_setup(chip, err);
    if (rc == MB_OK)
        rc = mma_mass_setup(err);
    if (rc == MB_OK)
        rc = sm90_setup(chip, err);
    if (rc == MB_OK)
        rc = sm90_mass_setup(err);
    if (rc == MB_OK)
        rc = sm90_votes_setup(err);
    return rc;
}

size_t mb_cuda_attend_workspace(const mb_cuda_chip *chip, mb_type type, const mb_attention *args)
{
    Problem p = problem_from(args);
    return layout(chip, type, args, false, &p).total;
}

size_t mb_cuda_attend_sparse_workspace(const mb_cuda_chip *chip, mb_type type, const mb_attention *args)
{
    Problem p = problem_from(args);
    return layout(chip, type, args, true, &p).total;
}

size_t mb_cuda_attention_workspace(const mb_cuda_chip *chip, mb_type type, int32_t batch, int32_t rows,
                                   int32_t query_heads, int32_t kv_heads, int32_t head_dim, int32_t prefix)
{
    /* For a given length dense with a mass is the largest; shorter ones may be split more often. */
    static float wanted;
    mb_attention args;
    size_t most = 0;
    memset(&args, 0, sizeof args);
    args.rows.batch = args.kv.batch = batch;
    args.rows.rows = args.rows.block_keys = rows;
    args.kv.kv_heads = kv_heads;
    args.kv.head_dim = head_dim;
    args.kv.capacity = prefix + rows;
    args.query_heads = query_heads;
    args.mass = &wanted;
    for (int64_t n = prefix, last = -1; n != last; last = n, n /= 2) { /* down to none */
        args.rows.max_prefix = (int32_t)n;
        size_t bytes = mb_cuda_attend_workspace(chip, type, &args);
        mb_page_set pages = {1, (int32_t)n, NULL, NULL};
        args.pages = &pages;
        size_t sparse = mb_cuda_attend_sparse_workspace(chip, type, &args);
        args.pages = NULL;
        most = bytes > most ? bytes : most;
        most = sparse > most ? sparse : most;
    }
    return most;
}

int mb_launch_attend(const mb_cuda_chip *chip, mb_type type, const mb_attention *args, void *workspace,
                     size_t workspace_bytes, cudaStream_t stream, mb_error *err)
{
    int rc = check(type, args, false, err);
    if (rc != MB_OK)
        return rc;
    Problem p = problem_from(args);
    if (p.batch == 0 || p.packed == 0)
        return MB_OK;
    Layout at = layout(chip, type, args, false, &p);
    rc = bind(&p, at, workspace, workspace_bytes, err);
    if (rc != MB_OK)
        return rc;
    if (at.sm90)
        rc = sm90_attend(chip, p, stream, err);
    else if (mma_serves(type, p.head_dim))
        rc = mma_attend(chip, type, p, stream, err);
    else
        rc = plain_attend(type, p, false, stream, err);
    if (p.tile_part)
        p.tile_mass = NULL; /* made on the way */
    if (rc == MB_OK && (p.mass || p.tile_mass))
        rc = run_mass(chip, type, p, stream, err);
    return rc;
}

int mb_launch_attend_sparse(const mb_cuda_chip *chip, mb_type type, const mb_attention *args, void *workspace,
                            size_t workspace_bytes, cudaStream_t stream, mb_error *err)
{
    int rc = check(type, args, true, err);
    if (rc != MB_OK)
        return rc;
    Problem p = problem_from(args);
    if (p.batch == 0 || p.packed == 0)
        return MB_OK;
    Layout at = layout(chip, type, args, true, &p);
    rc = bind(&p, at, workspace, workspace_bytes, err);
    if (rc != MB_OK)
        return rc;
    if (mma_serves(type, p.head_dim))
        return pages_attend(chip, type, p, stream, err);
    return plain_attend(type, p, true, stream, err);
}

int mb_launch_mass(const mb_cuda_chip *chip, mb_type type, const mb_attention *args, cudaStream_t stream,
                   mb_error *err)
{
    int rc = check(type, args, false, err);
    if (rc != MB_OK)
        return rc;
    if (!args->lse)
        return mb_fail(err, MB_E_BUG, "CUDA attention: mass needs the rows' log-sum-exp");
    return run_mass(chip, type, problem_from(args), stream, err);
}

int mb_launch_attend_prefill(const mb_cuda_chip *chip, mb_type type, const mb_prefill *prefill,
                             cudaStream_t stream, mb_error *err)
{
    const mb_kv *kv = &prefill->kv;
    int32_t sequence = prefill->sequence, block = prefill->block;
    int64_t first = prefill->first, n = prefill->n;
    mb_attention args;
    memset(&args, 0, sizeof args);
    args.kv = *kv;
    args.query_heads = prefill->query_heads;
    args.q = prefill->q;
    args.out = prefill->out;
    args.rows.batch = 1;
    args.rows.rows = 1;
    int rc = check(type, &args, false, err);
    if (rc != MB_OK)
        return rc;
    if (sequence < 0 || sequence >= kv->batch || first < 0 || n < 0 || first + n > kv->capacity || block < 1 ||
        prefill->window < 0 || (prefill->window && block > 1))
        return mb_fail(err, MB_E_BUG,
                       "CUDA prefill: sequence %d of %d, rows %lld..+%lld of a cache of %d, block %d", sequence,
                       kv->batch, (long long)first, (long long)n, kv->capacity, block);
    if (n == 0)
        return MB_OK;
    Problem p = problem_from(&args);
    p.sequence = sequence;
    p.first = first;
    p.prefill_rows = (int32_t)n;
    p.prefill_block = block;
    p.prefill_window = prefill->window;
    if (prefill->window > 0)
        return plain_prefill(type, p, stream, err);
    if (sm90_serves(chip, type, p))
        return sm90_prefill(chip, p, stream, err);
    if (mma_serves(type, p.head_dim))
        return mma_prefill(type, p, stream, err);
    return plain_prefill(type, p, stream, err);
}
