/*
 * ring.cu - states of earlier blocks: the nearest stored query of each row, its state, and which rows look how far
 * back. Same definitions as the CPU's ring.c. Ages are read on the device, so one captured graph serves every
 * position of the ring.
 */
#include "kernels/cuda/common.cuh"

using namespace mb_cuda;

namespace {

constexpr int THREADS = 256;

/* One warp a row; the rows of a query head share a thread block, because they read the same stored vectors. */
template <typename T>
__global__ void match_kernel(int rows, int query_heads, int dim, const T *a, const T *stored, int blocks,
                             int64_t pitch, const uint8_t *ages, int any, int32_t *slot, float *distance,
                             float *norm)
{
    int lane = threadIdx.x % 32, row = blockIdx.y * (THREADS / 32) + threadIdx.x / 32;
    int64_t b = blockIdx.x / query_heads, head = blockIdx.x % query_heads;
    if (row >= rows)
        return;
    int64_t at = (b * rows + row) * query_heads + head;
    float best = INFINITY, best_norm = 0.0f;
    int best_slot = -1, best_age = 0;
    for (int s = 0; s < blocks; s++) {
        int age = ages[s], last = any ? rows - 1 : row;
        for (int r = any ? 0 : row; age && r <= last; r++) {
            const T *from = stored + (s * pitch + (b * rows + r) * query_heads + head) * dim;
            float d = 0.0f, n = 0.0f;
            for (int c = lane; c < dim; c += 32) {
                float x = load(a + at * dim + c), y = load(from + c);
                d += (x - y) * (x - y);
                n += y * y;
            }
            d = warp_sum(d);
            n = warp_sum(n);
            if (d < best || (d == best && age < best_age)) {
                best = d;
                best_norm = n;
                best_slot = s * rows + r;
                best_age = age;
            }
        }
    }
    if (lane == 0) {
        slot[at] = best_slot;
        distance[at] = best;
        norm[at] = best_norm;
    }
}

/* One block a row of one query head; vectors are moved as 16-bit words. */
__global__ void gather_kernel(int rows, int query_heads, int words, const int32_t *slot, const uint16_t *stored,
                              const float *stored_lse, int blocks, int64_t pitch, uint16_t *out, float *lse)
{
    int64_t at = blockIdx.x, b = at / query_heads / rows, s = slot[at];
    bool none = s < 0 || s >= (int64_t)blocks * rows;
    int64_t from = none ? 0 : s / rows * pitch + (b * rows + s % rows) * query_heads + at % query_heads;
    for (int i = threadIdx.x; i < words; i += blockDim.x)
        out[at * words + i] = none ? (uint16_t)0 : stored[from * words + i];
    if (threadIdx.x == 0)
        lse[at] = none ? -INFINITY : stored_lse[from];
}

/* One block a KV head of a sequence. */
__global__ void reach_kernel(int rows, int query_heads, int kv_heads, const int32_t *slot, const uint8_t *ages,
                             int age, const int32_t *active, const int32_t *missed, int32_t *heads,
                             int32_t *reached)
{
    int group = query_heads / kv_heads, b = blockIdx.x / kv_heads, h = blockIdx.x % kv_heads, found = 0;
    bool read_again = !active || active[blockIdx.x];
    for (int i = threadIdx.x; i < rows * group; i += blockDim.x) {
        int64_t at = ((int64_t)b * rows + i / group) * query_heads + h * group + i % group;
        bool overwritten = read_again && (!missed || missed[at]);
        int hit = slot[at] >= 0 && ages[slot[at] / rows] >= age && !overwritten;
        reached[at] = hit;
        found |= hit;
    }
    found = __syncthreads_or(found);
    if (threadIdx.x == 0)
        heads[blockIdx.x] = found ? -1 : 0;
}

} // namespace

MB_CUDA_OPERATION(ring_match, mb_ring_match, MB_PART_SELECTION)
{
    const mb_row_shape *shape = &args->shape;
    const mb_state_ring *ring = &args->ring;
    dim3 grid(shape->batch * shape->query_heads, (shape->rows + THREADS / 32 - 1) / (THREADS / 32));
    if (ring->blocks < 1)
        return cudaErrorInvalidValue;
    MB_WITH_TYPE(device->type, match_kernel<<<grid, THREADS, 0, device->stream>>>(
                                   shape->rows, shape->query_heads, shape->head_dim, (const T *)args->a,
                                   (const T *)ring->q, ring->blocks, ring->pitch, ring->ages, args->any, args->slot,
                                   args->distance, args->norm));
    return cudaGetLastError();
}

MB_CUDA_OPERATION(ring_gather, mb_ring_gather, MB_PART_COPY)
{
    const mb_row_shape *shape = &args->shape;
    const mb_state_ring *ring = &args->ring;
    gather_kernel<<<shape->batch * shape->rows * shape->query_heads, 64, 0, device->stream>>>(
        shape->rows, shape->query_heads, shape->head_dim * (int)mb_type_size(device->type) / 2, args->slot,
        (const uint16_t *)ring->out, ring->lse, ring->blocks, ring->pitch, (uint16_t *)args->out, args->lse);
    return cudaGetLastError();
}

MB_CUDA_OPERATION(ring_reach, mb_ring_reach, MB_PART_SELECTION)
{
    const mb_row_shape *shape = &args->shape;
    const mb_reach *reach = &args->reach;
    if (shape->kv_heads < 1 || shape->query_heads % shape->kv_heads || reach->age < 1)
        return cudaErrorInvalidValue;
    reach_kernel<<<shape->batch * shape->kv_heads, THREADS, 0, device->stream>>>(
        shape->rows, shape->query_heads, shape->kv_heads, reach->slot, args->ring.ages, reach->age, reach->active,
        reach->missed, reach->heads, reach->reached);
    return cudaGetLastError();
}
