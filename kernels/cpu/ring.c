/*
 * ring.c - states of earlier blocks: the nearest stored query of each row, its state, and which rows look how far
 * back. A block that is not filled (age 0) is as if it were not there, whatever its memory holds.
 */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

typedef struct ring_job {
    mb_type type;
    const mb_ring_match *args;
} ring_job;

/* One row of one sequence, all query heads. */
static void ring_piece(void *arg, int64_t index, int worker)
{
    const ring_job *job = arg;
    const mb_ring_match *args = job->args;
    const mb_state_ring *ring = &args->ring;
    int64_t rows = args->shape.rows, heads = args->shape.query_heads, dim = args->shape.head_dim;
    int64_t b = index / rows, row = index % rows;
    float own[MB_CPU_MOST_DIM], stored[MB_CPU_MOST_DIM];
    (void)worker;
    for (int64_t head = 0; head < heads; head++) {
        int64_t at = index * heads + head;
        int32_t best_age = 0;
        mb_load_row(job->type, args->a, at * dim, dim, own);
        args->slot[at] = -1;
        args->distance[at] = INFINITY;
        args->norm[at] = 0.0f;
        for (int64_t s = 0; s < ring->blocks; s++) {
            int64_t last = args->any ? rows - 1 : row;
            for (int64_t r = args->any ? 0 : row; ring->ages[s] && r <= last; r++) {
                float distance = 0.0f, norm = 0.0f;
                mb_load_row(job->type, ring->q, (s * ring->pitch + (b * rows + r) * heads + head) * dim, dim,
                            stored);
                for (int64_t c = 0; c < dim; c++) {
                    distance += (own[c] - stored[c]) * (own[c] - stored[c]);
                    norm += stored[c] * stored[c];
                }
                if (distance < args->distance[at] ||
                    (distance == args->distance[at] && ring->ages[s] < best_age)) {
                    args->slot[at] = (int32_t)(s * rows + r);
                    args->distance[at] = distance;
                    args->norm[at] = norm;
                    best_age = ring->ages[s];
                }
            }
        }
    }
}

int mb_cpu_ring_match(mb_device *device, const mb_ring_match *args)
{
    ring_job job = {device->type, args};
    int32_t dim = args->shape.head_dim;
    if (dim < 1 || dim > MB_CPU_MOST_DIM || args->ring.blocks < 1)
        return mb_cpu_fail(device, MB_E_BUG, "ring_match: head_dim %d, %d blocks", dim, args->ring.blocks);
    mb_cpu_run(device, (int64_t)args->shape.batch * args->shape.rows, ring_piece, &job);
    return MB_OK;
}

int mb_cpu_ring_gather(mb_device *device, const mb_ring_gather *args)
{
    const mb_state_ring *ring = &args->ring;
    int64_t rows = args->shape.rows, heads = args->shape.query_heads, n = args->shape.batch * rows * heads;
    size_t size = (size_t)args->shape.head_dim * mb_type_size(device->type);
    for (int64_t at = 0; at < n; at++) {
        int32_t slot = args->slot[at];
        int64_t b = at / heads / rows, head = at % heads, s = slot / rows, r = slot % rows;
        char *to = (char *)args->out + (size_t)at * size;
        if (slot < 0) {
            memset(to, 0, size);
            args->lse[at] = -INFINITY;
            continue;
        }
        if (s >= ring->blocks)
            return mb_cpu_fail(device, MB_E_BUG, "ring_gather: slot %d of %d blocks", slot, ring->blocks);
        int64_t from = s * ring->pitch + (b * rows + r) * heads + head;
        memcpy(to, (const char *)ring->out + (size_t)from * size, size);
        args->lse[at] = ring->lse[from];
    }
    return MB_OK;
}

int mb_cpu_ring_reach(mb_device *device, const mb_ring_reach *args)
{
    const mb_reach *reach = &args->reach;
    int64_t rows = args->shape.rows, heads = args->shape.query_heads, kv_heads = args->shape.kv_heads;
    int64_t group = mb_cpu_group(&args->shape);
    if (group < 1 || reach->age < 1)
        return mb_cpu_fail(device, MB_E_BUG, "ring_reach: %d query heads on %d KV heads, age %d",
                           args->shape.query_heads, args->shape.kv_heads, reach->age);
    memset(reach->heads, 0, (size_t)(args->shape.batch * kv_heads) * sizeof *reach->heads);
    for (int64_t at = 0; at < args->shape.batch * rows * heads; at++) {
        int64_t bh = at / heads / rows * kv_heads + at % heads / group;
        int32_t slot = reach->slot[at];
        bool overwritten = (!reach->active || reach->active[bh]) && (!reach->missed || reach->missed[at]);
        reach->reached[at] = slot >= 0 && args->ring.ages[slot / rows] >= reach->age && !overwritten;
        if (reach->reached[at])
            reach->heads[bh] = -1;
    }
    return MB_OK;
}
