/*
 * flash_256.cu - the attention kernels for head_dim 256: the output takes 128 registers, which leaves 80 keys a
 * tile.
 */
#include "kernels/cuda/flash_kinds.cuh"

namespace mb_cuda
{

const FlashKind flash_kinds_256[FLASH_KINDS_256] = {
    flash_kind<FlashShape<FLASH_BLOCK, 256, 80, 2, 2, false>>(),
    flash_kind<FlashShape<FLASH_BLOCK, 256, 80, 2, 1, false>>(),
    flash_kind<FlashShape<FLASH_PREFILL, 256, 80, 2, 1, false>>(),
};

} /* namespace mb_cuda */
