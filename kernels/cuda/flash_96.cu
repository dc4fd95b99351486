/*
 * flash_96.cu - the attention kernels for head_dim 64, 80 and 96: those of head_dim 128 with fewer channels. 80
 * and 96 fill the second panel of 64 channels in part.
 */
#include "kernels/cuda/flash_kinds.cuh"

namespace mb_cuda
{

#define MB_KINDS(D)                                                                                               \
    flash_kind<FlashShape<FLASH_BLOCK, D, 128, 2, 2, true>>(),                                                    \
        flash_kind<FlashShape<FLASH_BLOCK, D, 128, 2, 1, true>>(),                                                \
        flash_kind<FlashShape<FLASH_PREFILL, D, 80, 3, 1, false>>(),                                              \
        flash_kind<FlashShape<FLASH_SPREAD, D, 80, 3, 1, false>>()

const FlashKind flash_kinds_96[FLASH_KINDS_96] = {MB_KINDS(64), MB_KINDS(80), MB_KINDS(96)};

} /* namespace mb_cuda */
