/*
 * ring.c - states of earlier blocks: the nearest stored query of each row, its state, and which rows look how far
 * back. A block that is not filled (age 0) is as if it were not there, whatever its memory holds.
 */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

typedef struct ring_job {
    const mb_device *device;
    int32_t rows, query_heads, head_dim, any;
    const void *a;
    const mb_state_ring *ring;
    int32_t *slot;
    float *distance, *norm;
} ring_job;

/* One row of one sequence, all query heads. */
static void ring_piece(void *arg, int64_t index, int worker)
{
    const ring_job *job = arg;
    const mb_state_ring *ring = job->ring;
    int64_t b = index / job->rows, row = index % job->rows, dim = job->head_dim;
    float own[256], stored[256];
    (void)worker;
    for (int64_t head = 0; head < job->query_heads; head++) {
        int64_t at = index * job->query_heads + head;
        int32_t best_age = 0;
        mb_load_row(job->device->type, job->a, at * dim, dim, own);
        job->slot[at] = -1;
        job->distance[at] = INFINITY;
        job->norm[at] = 0.0f;
        for (int64_t s = 0; s < ring->blocks; s++) {
            int64_t last = job->any ? job->rows - 1 : row;
            for (int64_t r = job->any ? 0 : row; ring->ages[s] && r <= last; r++) {
                float distance = 0.0f, norm = 0.0f;
                int64_t from = s * ring->pitch + (b * job->rows + r) * job->query_heads + head;
                mb_load_row(job->device->type, ring->q, from * dim, dim, stored);
                for (int64_t c = 0; c < dim; c++) {
                    distance += (own[c] - stored[c]) * (own[c] - stored[c]);
                    norm += stored[c] * stored[c];
                }
                if (distance < job->distance[at] || (distance == job->distance[at] && ring->ages[s] < best_age)) {
                    job->slot[at] = (int32_t)(s * job->rows + r);
                    job->distance[at] = distance;
                    job->norm[at] = norm;
                    best_age = ring->ages[s];
                }
            }
        }
    }
}

int mb_cpu_ring_match(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                      const void *a, const mb_state_ring *ring, int any, int32_t *slot, float *distance,
                      float *norm)
{
    ring_job job = {device, rows, query_heads, head_dim, any, a, ring, slot, distance, norm};
    if (head_dim < 1 || head_dim > 256 || ring->blocks < 1)
        return mb_cpu_fail(device, MB_E_BUG, "ring_match: head_dim %d, %d blocks", head_dim, ring->blocks);
    mb_cpu_run(device, (int64_t)batch * rows, ring_piece, &job);
    return MB_OK;
}

int mb_cpu_ring_gather(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t head_dim,
                       const int32_t *slot, const mb_state_ring *ring, void *out, float *lse)
{
    size_t size = (size_t)head_dim * mb_type_size(device->type);
    for (int64_t at = 0; at < (int64_t)batch * rows * query_heads; at++) {
        int64_t b = at / query_heads / rows, head = at % query_heads, s = slot[at] / rows, r = slot[at] % rows;
        char *to = (char *)out + (size_t)at * size;
        if (slot[at] < 0) {
            memset(to, 0, size);
            lse[at] = -INFINITY;
            continue;
        }
        if (s >= ring->blocks)
            return mb_cpu_fail(device, MB_E_BUG, "ring_gather: slot %d of %d blocks", slot[at], ring->blocks);
        int64_t from = s * ring->pitch + (b * rows + r) * query_heads + head;
        memcpy(to, (const char *)ring->out + (size_t)from * size, size);
        lse[at] = ring->lse[from];
    }
    return MB_OK;
}

int mb_cpu_ring_reach(mb_device *device, int32_t batch, int32_t rows, int32_t query_heads, int32_t kv_heads,
                      const int32_t *slot, const mb_state_ring *ring, int32_t age, const int32_t *active,
                      const int32_t *missed, int32_t *heads, int32_t *reached)
{
    int32_t group = kv_heads > 0 ? query_heads / kv_heads : 0;
    if (group < 1 || group * kv_heads != query_heads || age < 1)
        return mb_cpu_fail(device, MB_E_BUG, "ring_reach: %d query heads on %d KV heads, age %d", query_heads,
                           kv_heads, age);
    memset(heads, 0, (size_t)batch * (size_t)kv_heads * sizeof *heads);
    for (int64_t at = 0; at < (int64_t)batch * rows * query_heads; at++) {
        int64_t bh = at / query_heads / rows * kv_heads + at % query_heads / group;
        bool overwritten = (!active || active[bh]) && (!missed || missed[at]);
        reached[at] = slot[at] >= 0 && ring->ages[slot[at] / rows] >= age && !overwritten;
        if (reached[at])
            heads[bh] = -1;
    }
    return MB_OK;
}
