/*
 * table.c - the CUDA side of struct mb_kernels, and the operations that are more than one launch under one part:
 * those of several steps, those that need the attention's workspace, and the products of cuBLASLt. All others are
 * defined in their .cu files (MB_CUDA_OPERATION in backend.h).
 */
#include "kernels/cuda/backend.h"
#include "kernels/cuda/table.h"

#include <string.h>

/* One launcher's call under its part. */
#define CHECK_PART(part, call, what) (mb_cuda_part_begin(device, (part)), finish(device, (call), (what)))
/* The same for launchers that write their own sentence. */
#define CODE_PART(part, call) (mb_cuda_part_begin(device, (part)), finish_code(device, (call)))

static int finish(mb_device *device, cudaError_t status, const char *what)
{
    mb_cuda_part_end(device);
    return mb_cuda_check(device, status, what);
}

static int finish_code(mb_device *device, int rc)
{
    mb_cuda_part_end(device);
    return rc;
}

int mb_cuda_gemm(mb_device *device, const mb_gemm *args)
{
    return CODE_PART(MB_PART_GEMM, mb_cuda_blas_run(device, args));
}

int mb_cuda_route(mb_device *device, const mb_router *args)
{
    int rc = CHECK_PART(MB_PART_GEMM, mb_launch_router_logits(device->stream, device->type, args), "route");
    return rc != MB_OK ? rc
                       : CHECK_PART(MB_PART_ELEMENTWISE,
                                    mb_launch_router_choice(device->stream, device->type, args), "route");
}

int mb_cuda_experts(mb_device *device, const mb_experts *args)
{
    int rc = CHECK_PART(MB_PART_ELEMENTWISE, mb_launch_experts_lists(device->stream, args), "experts");
    if (rc == MB_OK)
        rc = CHECK_PART(MB_PART_GEMM, mb_launch_experts_products(device->stream, device->type, args), "experts");
    return rc != MB_OK ? rc
                       : CHECK_PART(MB_PART_ELEMENTWISE,
                                    mb_launch_experts_combine(device->stream, device->type, args), "experts");
}

/* The partial results have room for MB_TOP1_ROWS rows: more go in pieces. */
int mb_cuda_top1(mb_device *device, const mb_top1 *args)
{
    int rc = MB_OK;
    for (int64_t i = 0; rc == MB_OK && i < args->n; i += MB_TOP1_ROWS) {
        mb_top1 piece = *args;
        piece.n = args->n - i < MB_TOP1_ROWS ? args->n - i : MB_TOP1_ROWS;
        piece.logits = (const char *)args->logits + (size_t)(i * args->vocab) * mb_type_size(device->type);
        piece.ids = args->ids + i;
        piece.probability = args->probability + i;
        rc = CHECK_PART(MB_PART_SAMPLER, mb_launch_top1(device, &piece), "top1");
    }
    return rc;
}

/* ---- attention ---- */

int mb_cuda_attend(mb_device *device, const mb_attention *args)
{
    int rc = mb_cuda_workspace(device, mb_cuda_attend_workspace(&device->chip, device->type, args));
    return rc != MB_OK
               ? rc
               : CODE_PART(args->scope == MB_SCOPE_BLOCK ? MB_PART_BLOCK_ATTENTION : MB_PART_DENSE_ATTENTION,
                           mb_launch_attend(&device->chip, device->type, args, device->workspace,
                                            device->workspace_bytes, device->stream, &device->error));
}

int mb_cuda_attend_sparse(mb_device *device, const mb_attention *args)
{
    int rc = mb_cuda_workspace(device, mb_cuda_attend_sparse_workspace(&device->chip, device->type, args));
    return rc != MB_OK
               ? rc
               : CODE_PART(MB_PART_SPARSE_ATTENTION,
                           mb_launch_attend_sparse(&device->chip, device->type, args, device->workspace,
                                                   device->workspace_bytes, device->stream, &device->error));
}

int mb_cuda_attend_prefill(mb_device *device, const mb_prefill *args)
{
    return CODE_PART(MB_PART_DENSE_ATTENTION,
                     mb_launch_attend_prefill(&device->chip, device->type, args, device->stream, &device->error));
}

int mb_cuda_mass(mb_device *device, const mb_attention *args)
{
    /* Beside other work on half the chip: those are products that wait for memory, this one computes. The result
     * does not depend on it. */
    mb_cuda_chip chip = device->chip;
    if (device->branching)
        chip.multiprocessors = (chip.multiprocessors + 1) / 2;
    return CODE_PART(MB_PART_SELECTION, mb_launch_mass(&chip, device->type, args, device->stream, &device->error));
}

int mb_cuda_votes(mb_device *device, const mb_votes *args)
{
    return CODE_PART(MB_PART_SELECTION,
                     mb_launch_votes(&device->chip, device->type, args, device->stream, &device->error));
}

#define ENTRY(name, arguments) , .name = mb_cuda_##name

static const mb_kernels table = {
    .name = "cuda" MB_OPERATIONS(ENTRY),
    .open = mb_cuda_open,
    .close = mb_cuda_close,
    .info = mb_cuda_info,
    .error = mb_cuda_error,
    .alloc = mb_cuda_alloc,
    .mark = mb_cuda_mark,
    .release = mb_cuda_release,
    .upload = mb_cuda_upload,
    .download = mb_cuda_download,
    .copy = mb_cuda_copy,
    .fill = mb_cuda_fill,
    .sync = mb_cuda_sync,
    .capture_begin = mb_cuda_capture_begin,
    .capture_end = mb_cuda_capture_end,
    .branch_begin = mb_cuda_branch_begin,
    .branch_end = mb_cuda_branch_end,
    .branch_join = mb_cuda_branch_join,
    .graph_launch = mb_cuda_graph_launch,
    .graph_free = mb_cuda_graph_free,
    .timer_mark = mb_cuda_timer_mark,
    .timer_elapsed = mb_cuda_timer_elapsed,
    .range_push = mb_cuda_range_push,
    .range_pop = mb_cuda_range_pop,
    .votes_scratch = mb_cuda_votes_scratch,
    .top_k_scratch = mb_cuda_top_k_scratch,
    .telemetry = mb_cuda_telemetry,
    .profile_begin = mb_cuda_profile_begin,
    .profile_end = mb_cuda_profile_end,
    .stream = mb_cuda_stream,
    .link = &mb_cuda_link_table,
};

const mb_kernels *mb_kernels_cuda(void)
{
    return &table;
}
