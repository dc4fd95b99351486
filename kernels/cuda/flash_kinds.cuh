/*
 * flash_kinds.cuh - the list of compiled attention kernels (flash_sm90.cuh), by files so that they compile beside
 * one another: flash_128.cu, flash_96.cu (64, 80, 96) and flash_256.cu.
 */
#ifndef MB_CUDA_FLASH_KINDS_CUH
#define MB_CUDA_FLASH_KINDS_CUH

#include "kernels/cuda/flash_sm90.cuh"

namespace mb_cuda
{

constexpr int FLASH_KINDS_128 = 7, FLASH_KINDS_96 = 12, FLASH_KINDS_256 = 3;
constexpr int FLASH_KINDS = FLASH_KINDS_128 + FLASH_KINDS_96 + FLASH_KINDS_256;
extern const FlashKind flash_kinds_128[FLASH_KINDS_128], flash_kinds_96[FLASH_KINDS_96],
    flash_kinds_256[FLASH_KINDS_256];

inline const FlashKind *flash_kind_at(int i)
{
    if (i < FLASH_KINDS_128)
        return flash_kinds_128 + i;
    i -= FLASH_KINDS_128;
    return i < FLASH_KINDS_96 ? flash_kinds_96 + i : flash_kinds_256 + (i - FLASH_KINDS_96);
}

} /* namespace mb_cuda */

#endif
