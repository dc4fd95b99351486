/*
 * attention.cuh - the launchers of the CUDA attention kernels, for the file that fills struct mb_kernels.
 *
 * Every launcher enqueues kernels on a stream and returns: no allocation, no wait, nothing read back, so a
 * graph can capture it. Grid sizes come from host-known shapes (batch, rows, capacity, max_prefix); true
 * lengths are read from device memory inside the kernels. Scratch memory is handed in by the caller and holds
 * nothing between calls; one workspace may serve every call on the same stream. Results are bit-equal from run
 * to run: partial results are merged in a fixed order, no floating-point atomics.
 *
 * Return 0 or a negative MB_E_* with one sentence in err. Semantics of the arguments: kernels/kernels.h.
 */
#ifndef MB_CUDA_ATTENTION_CUH
#define MB_CUDA_ATTENTION_CUH

#include "kernels/kernels.h"

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the launchers must know about the GPU; filled once per device by mb_cuda_chip_probe. */
typedef struct mb_cuda_chip {
    int ordinal;
    int multiprocessors;
    int capability;           /* 10 * major + minor: 80, 86, 90, 100 ...; 80 where generic */
    int generic;              /* 1: MB_FORCE_GENERIC is set, launchers take what an sm_80 takes */
    int pair_clusters;        /* clusters of two big blocks that run at once; 0 = no sm_90a path */
    void *encode_tiled;       /* cuTensorMapEncodeTiled of the driver; NULL = no sm_90a path */
    int allow_sm90;           /* 1 normally; 0 forces the mma.sync path (parity tests compare the two) */
    int shared_bytes;         /* shared memory that a block may ask for */
    int resident_clusters[9]; /* [n]: clusters of n blocks that run at once, one block a multiprocessor */
    int sparse_cut;           /* 0 normally; else how sparse calls are cut (attend_pages.cu), to time the ways */
} mb_cuda_chip;

/* Fills chip for a device; sets the kernels' shared-memory limits on it. Makes the device current. With
 * MB_FORCE_GENERIC=1 in the environment chip says what an sm_80 would say, so that every launcher takes the path
 * that such GPUs and PTX builds take. */
int mb_cuda_chip_probe(int ordinal, mb_cuda_chip *chip, mb_error *err);

/* Bytes of workspace that a call with these arguments needs. Reads only what the host knows: shapes, capacity,
 * max_prefix, and which pointers (tile_mass, mass, lse, pages) are NULL. attend_sparse: args->pages is set. */
size_t mb_cuda_attend_workspace(const mb_cuda_chip *chip, mb_type type, const mb_attention *args);
size_t mb_cuda_attend_sparse_workspace(const mb_cuda_chip *chip, mb_type type, const mb_attention *args);
/* A bound of what every launcher below needs, over all spans and by-products: for a plan made before the arguments
 * exist. rows: the most query rows a sequence has in one call; prefix: the most keys. With tile_mass the exact
 * kernel can use more: batch * kv_heads * ceil(prefix/64) * G * rows floats on top (mb_cuda_attend_workspace asks
 * for them); when the workspace is smaller, tile masses are computed by a second pass over the keys instead. */
size_t mb_cuda_attention_workspace(const mb_cuda_chip *chip, mb_type type, int32_t batch, int32_t rows,
                                   int32_t query_heads, int32_t kv_heads, int32_t head_dim, int32_t prefix);

/* mb_kernels.attend. out may be NULL (log-sum-exp and masses only). */
int mb_launch_attend(const mb_cuda_chip *chip, mb_type type, const mb_attention *args, void *workspace,
                   size_t workspace_bytes, cudaStream_t stream, mb_error *err);

/* mb_kernels.attend_sparse. out may be NULL. */
int mb_launch_attend_sparse(const mb_cuda_chip *chip, mb_type type, const mb_attention *args, void *workspace,
                          size_t workspace_bytes, cudaStream_t stream, mb_error *err);

/* mb_kernels.attend_prefill. Needs no workspace. Keys at and beyond first + n are never read. */
int mb_launch_attend_prefill(const mb_cuda_chip *chip, mb_type type, const mb_prefill *args, cudaStream_t stream,
                             mb_error *err);

/* mb_kernels.mass: args->lse is read, args->mass (and args->tile_mass, if set) written. Needs no workspace. */
int mb_launch_mass(const mb_cuda_chip *chip, mb_type type, const mb_attention *args, cudaStream_t stream,
                   mb_error *err);

#ifdef __cplusplus
}
#endif
#endif
