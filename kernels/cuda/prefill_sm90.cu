/*
 * prefill_sm90.cu - block-causal prefill on sm_90a: the kernel of flash_sm90.cuh over tiles of 256 consecutive
 * positions of one query head, longest tiles first, so that the clusters that run together read the same keys.
 */
#include "kernels/cuda/flash_sm90.cuh"

namespace mb_cuda {

int sm90_prefill_setup(mb_error *err)
{
    cudaFuncSetAttribute(flash_kernel<FLASH_PREFILL, 1>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)FLASH_SHARED_BYTES);
    cudaFuncSetAttribute(flash_kernel<FLASH_PREFILL, 2>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         (int)FLASH_SHARED_BYTES);
    return check_launch("setting up the sm_90a prefill kernels", err);
}

int sm90_prefill(const mb_cuda_chip *chip, const Problem &p, cudaStream_t stream, mb_error *err)
{
    CUtensorMap k_map, v_map;
    int heads = (p.sequence + 1) * p.kv_heads;
    int rc = flash_map(chip, &k_map, p.k, p, heads, err);
    if (rc == MB_OK)
        rc = flash_map(chip, &v_map, p.v, p, heads, err);
    if (rc != MB_OK)
        return rc;
    /* Pairs halve what the L2 cache must deliver, which a chip at its power limit repays even where everything
     * fits the L2; few rows fill the chip better with single blocks. */
    int64_t pairs = (int64_t)flash_groups(p.prefill_rows, 2) * p.query_heads;
    int pair = pairs >= 2 * chip->pair_clusters ? 2 : 1;
    int clusters = pair == 2 ? chip->pair_clusters : chip->multiprocessors;
    int64_t items = (int64_t)flash_groups(p.prefill_rows, pair) * p.query_heads;
    if (items < clusters)
        clusters = (int)items;
    FlashKernel kernel = pair == 2 ? flash_kernel<FLASH_PREFILL, 2> : flash_kernel<FLASH_PREFILL, 1>;
    return flash_launch(kernel, p, k_map, v_map, pair, clusters, stream, err);
}

} /* namespace mb_cuda */
