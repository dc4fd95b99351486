/*
 * training.c - which backends can train. A backend that can has a row; a new one adds its table here. Kept apart
 * from mb_kernels, because a backend without these operations is whole for everything else.
 */
#include "kernels/cpu/train.h"
#include "kernels/training.h"

/* A backend by its table of operations, and its training operations. */
typedef struct trainer {
    const mb_kernels *(*kernels)(void);
    const mb_training_kernels *(*training)(void);
} trainer;

#ifdef MB_HAVE_CUDA
static const trainer trainers[] = {{mb_kernels_cpu, mb_training_cpu}, {mb_kernels_cuda, mb_training_cuda}};
#else
static const trainer trainers[] = {{mb_kernels_cpu, mb_training_cpu}};
#endif

int mb_training_of(const mb_kernels *kernels, const mb_training_kernels **training, mb_error *err)
{
    *training = NULL;
    for (size_t i = 0; i < sizeof trainers / sizeof trainers[0]; i++)
        if (trainers[i].kernels() == kernels)
            *training = trainers[i].training();
    if (*training)
        return MB_OK;
    return mb_fail(err, MB_E_INPUT, "the backend %s has no operations of a training: use \"device\": \"cpu\"",
                   kernels->name);
}

/* ---- the CPU's row ---- */

const mb_training_kernels *mb_training_cpu(void)
{
#define ENTRY(name, arguments) .name = mb_cpu_##name,
    static const mb_training_kernels table = {MB_TRAINING_OPERATIONS(ENTRY)};
#undef ENTRY
    return &table;
}
