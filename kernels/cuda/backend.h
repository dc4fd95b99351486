/*
 * backend.h - what the files of the CUDA backend share: the device and the launchers of its kernels.
 *
 * Host code is C and owns memory, graphs, cuBLASLt and the table; kernels are CUDA C behind extern "C" launchers
 * that enqueue on a stream and return cudaError_t. A launcher neither allocates nor waits.
 */
#ifndef MB_CUDA_BACKEND_H
#define MB_CUDA_BACKEND_H

#include "base/base.h"
#include "kernels/cuda/attention.cuh"
#include "kernels/kernels.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mb_cuda_nvml mb_cuda_nvml;       /* telemetry.c */
typedef struct mb_cuda_profile mb_cuda_profile; /* profile.c */
typedef struct mb_cuda_link mb_cuda_link;       /* nccl.c */
typedef struct mb_cuda_blas mb_cuda_blas;       /* cuBLASLt handle and the algorithms chosen per shape */

#define MB_RETIRED_MAX 16

struct mb_device {
    mb_cuda_chip chip;
    mb_type type;
    cudaStream_t stream;
    cudaEvent_t timers[MB_TIMER_SLOTS];
    char *arena;
    size_t arena_bytes, arena_used;
    void *workspace; /* of the attention kernels; grows only outside a capture */
    size_t workspace_bytes;
    void *retired[MB_RETIRED_MAX]; /* earlier workspaces that captured graphs still write to */
    int retired_count, graph_count;
    float *partials; /* of top1 and the row means: fixed size */
    mb_cuda_blas *blas;
    mb_cuda_nvml *nvml;
    mb_cuda_profile *profile;
    cudaStream_t beside;      /* a capture's second branch: `stream` while operations go there */
    cudaEvent_t forked, done; /* where it left the first, and its end */
    bool capturing, branching, unjoined;
    bool reduced; /* mb_device_options.reduced */
    char name[128], detail[256], runtime[32], uuid[48];
    mb_error error;
    mb_cuda_link *link; /* to the other ranks of a model, or NULL */
};

/* Remembers a failed call's text in the device; 0 or MB_E_SYSTEM. */
int mb_cuda_check(mb_device *device, cudaError_t status, const char *what);

/* ---- gemm.c ---- */
/* Loads cuBLASLt (dlopen) and reads the algorithms that earlier runs measured on this GPU. */
int mb_cuda_blas_open(mb_cuda_blas **blas, const mb_device *device, mb_error *err);
void mb_cuda_blas_close(mb_cuda_blas *blas);
int mb_cuda_blas_run(mb_device *device, const mb_gemm *args);

/* ---- telemetry.c, profile.c ---- */
/* The driver's version as nvidia-smi prints it; "" = not known. */
void mb_cuda_nvml_driver(const mb_cuda_nvml *nvml, char *version, size_t cap);
mb_cuda_nvml *mb_cuda_nvml_open(int ordinal); /* NULL or without a handle: everything is unknown */
void mb_cuda_nvml_close(mb_cuda_nvml *nvml);
void mb_cuda_profile_close(mb_cuda_profile *profile);
/* Kernels launched between the two belong to part; one comparison when no profile is open. */
void mb_cuda_part_begin(mb_device *device, mb_part part);
void mb_cuda_part_end(mb_device *device);

/* ---- elementwise.cu ---- */
cudaError_t mb_launch_copy(cudaStream_t stream, void *dst, const void *src, size_t bytes); /* not overlapping */
/* ---- router.cu, experts.cu, top1.cu: the steps of an operation, put together in table.c ---- */
cudaError_t mb_launch_router_logits(cudaStream_t stream, mb_type type, const mb_router *args);
cudaError_t mb_launch_router_choice(cudaStream_t stream, mb_type type, const mb_router *args);
cudaError_t mb_launch_experts_lists(cudaStream_t stream, const mb_experts *args);
cudaError_t mb_launch_experts_products(cudaStream_t stream, mb_type type, const mb_experts *args);
cudaError_t mb_launch_experts_combine(cudaStream_t stream, mb_type type, const mb_experts *args);
/* device->partials: MB_TOP1_PARTIALS floats for each row of a call. */
#define MB_TOP1_CHUNKS 32
#define MB_TOP1_PARTIALS (4 * MB_TOP1_CHUNKS)
#define MB_TOP1_ROWS 4096
cudaError_t mb_launch_top1(mb_device *device, const mb_top1 *args);

/* ---- pages.cu, select.cu, votes.cu ---- */
#define MB_MEAN_FLOATS ((size_t)4 << 20) /* capacity of the row-mean buffer: [batch][kv_heads][2][head_dim] */
size_t mb_cuda_top_k_scratch(int32_t batch, int32_t kv_heads, int32_t entries);
size_t mb_cuda_votes_scratch(const mb_attention *args, int32_t k);
/* 0 or a negative code with a sentence in err, like the launchers of attention.cuh. */
int mb_launch_votes(const mb_cuda_chip *chip, mb_type type, const mb_votes *args, cudaStream_t stream,
                    mb_error *err);

/* ---- every operation of the table: enqueues and returns 0 or a code, whose text is in the device ---- */
#define MB_CUDA_DECLARE(name, arguments) int mb_cuda_##name(mb_device *device, const arguments *args);
MB_OPERATIONS(MB_CUDA_DECLARE)
#undef MB_CUDA_DECLARE

/* Defines one of them in a .cu file, under the part of the breakdown that its kernels count for. What follows in
 * braces enqueues them on device->stream and returns the status; device and args are in scope. */
#define MB_CUDA_OPERATION(name, arguments, part)                                                                  \
    static cudaError_t launch_##name(mb_device *device, const arguments *args);                                   \
    extern "C" int mb_cuda_##name(mb_device *device, const arguments *args)                                       \
    {                                                                                                             \
        mb_cuda_part_begin(device, part);                                                                         \
        cudaError_t status = launch_##name(device, args);                                                         \
        mb_cuda_part_end(device);                                                                                 \
        return mb_cuda_check(device, status, #name);                                                              \
    }                                                                                                             \
    static cudaError_t launch_##name(mb_device *device, const arguments *args)

#ifdef __cplusplus
}
#endif
#endif
