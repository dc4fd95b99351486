/*
 * flash_128.cu - the attention kernels for head_dim 128.
 *
 * A pair of two times two warpgroups serves 256 rows, three warpgroups 192, one block of two 128. With two
 * warpgroups 128 keys a tile and the queries in registers were fastest (160 and 176 keys with queries in shared
 * memory were 5 and 6 % slower); three leave registers for 80 keys.
 */
#include "kernels/cuda/flash_kinds.cuh"

namespace mb_cuda
{

const FlashKind flash_kinds_128[FLASH_KINDS_128] = {
    flash_kind<FlashShape<FLASH_BLOCK, 128, 128, 2, 2, true>>(),
    flash_kind<FlashShape<FLASH_BLOCK, 128, 80, 3, 1, false>>(),
    flash_kind<FlashShape<FLASH_BLOCK, 128, 128, 2, 1, true>>(),
    flash_kind<FlashShape<FLASH_BLOCK_TILES, 128, 128, 2, 2, true>>(),
    flash_kind<FlashShape<FLASH_BLOCK_TILES, 128, 128, 2, 1, true>>(),
    flash_kind<FlashShape<FLASH_PREFILL, 128, 80, 3, 1, false>>(),
    flash_kind<FlashShape<FLASH_SPREAD, 128, 80, 3, 1, false>>(),
};

} /* namespace mb_cuda */
