/*
 * key_list.cuh - where the keys of one attention come from: a dense range of the cache, the pages of a selection
 * followed by the current block, or everything in front of a prefill row. A kernel walks list positions
 * 0 .. total-1 and asks for the cache slot of each; the order does not matter to a softmax.
 */
#ifndef MB_CUDA_KEY_LIST_CUH
#define MB_CUDA_KEY_LIST_CUH

#include "kernels/cuda/attention_common.cuh"

namespace mb_cuda {

enum Source { DENSE = 0, PAGES = 1, PREFILL = 2 };

struct KeyList {
    int total;      /* keys in the list */
    int begin;      /* DENSE, PREFILL: first slot */
    int selected;   /* PAGES: positions below this are pages, the rest is the block from slot `prefix` on */
    int hole;       /* PAGES: positions hole .. selected-1 hold no key (end of a partial last page, unused ids) */
    int prefix;
    int shift;      /* log2 of the page size */
    int last;       /* highest slot that may be read */
    const int32_t *ids;
};

/* Keys of (b, h). For PREFILL `rows_end` is one past the last row of the tile. For PAGES the list may be laid out
 * for `pages` >= count pages: a kernel that has already cut its share from the capacity, before the count was
 * known, passes that; unused positions become a hole. pages < 0: as many as there are. */
template <Source SOURCE>
__device__ __forceinline__ KeyList key_list(const Problem &p, int b, int h, int rows_end, int pages = -1)
{
    KeyList list = {};
    list.last = p.capacity - 1;
    if (SOURCE == PREFILL) {
        int64_t position = p.first + rows_end - 1;
        int64_t limit = (position / p.prefill_block + 1) * p.prefill_block;
        int64_t end = p.first + p.prefill_rows;
        list.total = (int)(limit < end ? limit : end);
        if (p.prefill_window > 0 && position >= p.prefill_window) {
            list.begin = (int)(position - p.prefill_window + 1);
            list.total -= list.begin;
        }
        return list;
    }
    KeyRange range = key_range(p, b);
    list.prefix = range.prefix;
    list.begin = range.begin;
    list.total = range.end - range.begin;
    if (SOURCE == PAGES) {
        int unit = b * p.kv_heads + h;
        int count = p.page_counts[unit];
        if (count < 0) {
            list.selected = 0;   /* the whole prefix: slots 0 .. end-1 are "the block", which starts at 0 */
            list.prefix = list.begin;
            return list;
        }
        count = count < p.page_capacity ? count : p.page_capacity;
        list.shift = p.page_shift;
        list.ids = p.page_ids + (int64_t)unit * p.page_capacity;
        if (p.span == MB_SCOPE_BLOCK)
            count = 0;
        if (count > 0) {
            int64_t left = (int64_t)range.prefix - ((int64_t)list.ids[count - 1] << list.shift);
            int tail = left < 0 ? 0 : left > (1 << list.shift) ? 1 << list.shift : (int)left;
            list.hole = ((count - 1) << list.shift) + tail;
        }
        list.selected = (pages < 0 ? count : pages) << list.shift;
        list.total = list.selected + (p.span == MB_SCOPE_PREFIX ? 0 : range.end - range.prefix);
    }
    return list;
}

/* True when position j < total holds a key. */
template <Source SOURCE> __device__ __forceinline__ bool key_there(const KeyList &list, int j)
{
    return SOURCE != PAGES || j < list.hole || j >= list.selected;
}

/* Cache slot of list position j, which must hold a key. */
template <Source SOURCE> __device__ __forceinline__ int key_slot(const KeyList &list, int j)
{
    if (SOURCE == DENSE)
        return list.begin + j;
    if (SOURCE == PREFILL)
        return list.begin + j;
    if (j >= list.selected)
        return list.prefix + (j - list.selected);
    int slot = (list.ids[j >> list.shift] << list.shift) + (j & ((1 << list.shift) - 1));
    return slot < 0 ? 0 : slot > list.last ? list.last : slot;
}

/* PREFILL: keys that row `row` sees. */
__device__ __forceinline__ int prefill_limit(const Problem &p, int row)
{
    int64_t limit = ((p.first + row) / p.prefill_block + 1) * p.prefill_block;
    int64_t end = p.first + p.prefill_rows;
    return (int)(limit < end ? limit : end);
}

/* Row `row` of a unit (a KV head, or for PREFILL a query head): its state number. */
template <Source SOURCE>
__device__ __forceinline__ int64_t row_state(const Problem &p, int b, int h, int query_head, int row)
{
    if (SOURCE == PREFILL)
        return (int64_t)row * p.query_heads + query_head;
    return state_of(p, b, h, row);
}

} /* namespace mb_cuda */

#endif
