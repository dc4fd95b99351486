/*
 * prefill_sm90.cu - block-causal prefill on sm_90a: the kernel of flash_sm90.cuh over tiles of consecutive
 * positions of one query head, longest first, so that the blocks that run together read the same keys.
 */
#include "kernels/cuda/flash_sm90.cuh"

namespace mb_cuda
{

int sm90_prefill(const mb_cuda_chip *chip, const Problem &given, cudaStream_t stream, mb_error *err)
{
    Problem p = given;
    const FlashKind *kind = flash_find(FLASH_PREFILL, p.head_dim, p.prefill_rows);
    const FlashKind *spread = flash_find(FLASH_SPREAD, p.head_dim, p.prefill_rows);
    int heads = (p.sequence + 1) * p.kv_heads, clusters = flash_clusters(chip, *kind);
    int items = flash_groups(p.prefill_rows, kind->rows) * p.query_heads;
    p.prefill_whole = spread ? items / clusters * clusters : items;
    int rc = MB_OK;
    if (p.prefill_whole > 0)
        rc = flash_launch(chip, *kind, p, heads, p.prefill_whole < clusters ? p.prefill_whole : clusters, false,
                          stream, err);
    /* The rest begins as the blocks of the whole rounds end. */
    int groups = (items - p.prefill_whole) * (kind->rows / 64);
    if (rc == MB_OK && groups > 0)
        rc = flash_launch(chip, *spread, p, heads, groups < clusters ? groups : clusters, p.prefill_whole > 0,
                          stream, err);
    return rc;
}

} /* namespace mb_cuda */
