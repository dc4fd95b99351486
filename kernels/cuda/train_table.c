/*
 * train_table.c - the CUDA side of struct mb_training_kernels, and those of its operations that are no single
 * launch: attention, whose kernel depends on the shape, and the sum that comes back to the host.
 */
#include "kernels/cuda/table.h"
#include "kernels/cuda/train.h"

int mb_cuda_train_work(mb_device *device, const char *operation, size_t bytes)
{
    if (device->type != MB_F32)
        return mb_fail(&device->error, MB_E_BUG, "%s: the device was not opened for fp32", operation);
    return mb_cuda_workspace(device, bytes);
}

static int check_attention(mb_device *device, const char *operation, const mb_train_attention *args)
{
    const mb_train_layout *layout = &args->layout;
    if (layout->block < 1 || layout->clean % layout->block || layout->tail % layout->block ||
        layout->tail > layout->clean || args->kv_heads < 1 || args->query_heads % args->kv_heads)
        return mb_fail(&device->error, MB_E_BUG, "%s: impossible layout: %d clean, %d tail, block %d, %d/%d heads",
                       operation, layout->clean, layout->tail, layout->block, args->query_heads, args->kv_heads);
    if (args->mass && args->index)
        return mb_fail(&device->error, MB_E_BUG, "%s: mass is of the exact attention", operation);
    return mb_cuda_train_work(device, operation, 0);
}

int mb_cuda_train_attend(mb_device *device, const mb_train_attention *args)
{
    int rc = check_attention(device, "train_attend", args);
    return rc == MB_OK ? mb_cuda_train_attend_plain(device, args) : rc;
}

int mb_cuda_train_attend_gradient(mb_device *device, const mb_train_attention *args)
{
    int rc = check_attention(device, "train_attend_gradient", args);
    return rc == MB_OK ? mb_cuda_train_attend_gradient_plain(device, args) : rc;
}

int mb_cuda_square_sum(mb_device *device, const mb_square_sum *args)
{
    double sum = 0.0;
    int rc = mb_cuda_train_work(device, "square_sum", mb_cuda_square_sum_work());
    if (rc != MB_OK)
        return rc;
    mb_cuda_part_begin(device, MB_PART_ELEMENTWISE);
    cudaError_t status = mb_launch_square_sum(device->stream, args->x, args->n, device->workspace);
    mb_cuda_part_end(device);
    rc = mb_cuda_check(device, status, "square_sum");
    if (rc == MB_OK)
        rc = mb_cuda_download(device, &sum, device->workspace, sizeof sum);
    *args->sum += sum;
    return rc;
}

const mb_training_kernels *mb_training_cuda(void)
{
#define ENTRY(name, arguments) .name = mb_cuda_##name,
    static const mb_training_kernels table = {MB_TRAINING_OPERATIONS(ENTRY)};
#undef ENTRY
    return &table;
}
