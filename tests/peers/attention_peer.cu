/*
 * attention_peer.cu - our attention kernels behind six plain functions, for attention.py to call through ctypes
 * beside PyTorch's and other libraries' kernels. Pointers are device memory; returns 0, or prints why not.
 *
 * cc -c -fPIC -fvisibility=hidden -ffunction-sections -D_GNU_SOURCE -I. base/text.c && \
 * nvcc -O3 -std=c++17 -shared -Xcompiler -fPIC -Xlinker --gc-sections -gencode arch=compute_90a,code=sm_90a -I. \
 *     tests/peers/attention_peer.cu \
 *     kernels/cuda/{attend,attend_mma,attend_pages,attend_pages_sm90,attend_plain,attend_sm90,prefill_sm90}.cu \
 *     kernels/cuda/{mass_mma,mass_sm90,merge,flash_128,flash_96,flash_256,votes_sm90}.cu text.o -o attention_peer.so
 */
#include "kernels/cuda/attention.cuh"

#include <stdio.h>
#include <string.h>

static mb_cuda_chip chip;

struct Shape {
    int32_t batch, rows, query_heads, kv_heads, head_dim, capacity, keys;
};

static int complain(int rc, const mb_error *err)
{
    if (rc != 0)
        fprintf(stderr, "attention_peer: %s\n", err->text);
    return rc;
}

static mb_attention arguments(const Shape *s, const void *q, const void *k, const void *v, const int32_t *prefix,
                              void *out, float *lse)
{
    mb_attention a;
    memset(&a, 0, sizeof a);
    a.rows.batch = s->batch;
    a.rows.rows = a.rows.block_keys = s->rows;
    a.rows.prefix_len = prefix;
    a.rows.max_prefix = s->keys;
    a.kv = {(void *)k, (void *)v, s->batch, s->kv_heads, s->capacity, s->head_dim};
    a.query_heads = s->query_heads;
    a.q = q;
    a.scope = MB_SCOPE_PREFIX; /* as many keys as the peers get */
    a.out = out;
    a.lse = lse;
    return a;
}

extern "C" {

int peer_start(void)
{
    mb_error err = {};
    return complain(mb_cuda_chip_probe(0, &chip, &err), &err);
}

size_t peer_workspace(const Shape *s)
{
    mb_attention a = arguments(s, NULL, NULL, NULL, NULL, NULL, NULL);
    return mb_cuda_attend_workspace(&chip, MB_BF16, &a);
}

/* q, out: [batch][rows][query_heads][head_dim]; k, v: [batch][kv_heads][capacity][head_dim]. */
int peer_attend(const Shape *s, const void *q, const void *k, const void *v, const int32_t *prefix, void *out,
                float *lse, void *workspace, size_t bytes, void *stream)
{
    mb_error err = {};
    mb_attention a = arguments(s, q, k, v, prefix, out, lse);
    return complain(mb_launch_attend(&chip, MB_BF16, &a, workspace, bytes, (cudaStream_t)stream, &err), &err);
}

/* `chosen` pages of `page` tokens of each sequence and KV head: ids [batch][kv_heads][chosen], all of them used. */
static mb_page_set pages_of(int32_t page, int32_t chosen, const int32_t *ids, const int32_t *counts)
{
    mb_page_set set;
    memset(&set, 0, sizeof set);
    set.granularity = page;
    set.capacity = chosen;
    set.ids = (int32_t *)ids;
    set.counts = (int32_t *)counts;
    return set;
}

size_t peer_sparse_workspace(const Shape *s, int32_t page, int32_t chosen)
{
    mb_page_set set = pages_of(page, chosen, NULL, NULL);
    mb_attention a = arguments(s, NULL, NULL, NULL, NULL, NULL, NULL);
    a.pages = &set;
    return mb_cuda_attend_sparse_workspace(&chip, MB_BF16, &a);
}

int peer_sparse(const Shape *s, const void *q, const void *k, const void *v, const int32_t *prefix, int32_t page,
                int32_t chosen, const int32_t *ids, const int32_t *counts, void *out, void *workspace, size_t bytes,
                void *stream)
{
    mb_error err = {};
    mb_page_set set = pages_of(page, chosen, ids, counts);
    mb_attention a = arguments(s, q, k, v, prefix, out, NULL);
    a.pages = &set;
    return complain(mb_launch_attend_sparse(&chip, MB_BF16, &a, workspace, bytes, (cudaStream_t)stream, &err), &err);
}

/* Rows keys - rows .. keys - 1 of one sequence, causal by blocks of `block`. */
int peer_prefill(const Shape *s, const void *q, const void *k, const void *v, int32_t block, void *out,
                 void *stream)
{
    mb_error err = {};
    mb_prefill a = {{(void *)k, (void *)v, 1, s->kv_heads, s->capacity, s->head_dim},
                    0,
                    s->query_heads,
                    q,
                    s->keys - s->rows,
                    s->rows,
                    block,
                    out};
    return complain(mb_launch_attend_prefill(&chip, MB_BF16, &a, (cudaStream_t)stream, &err), &err);
}
}
