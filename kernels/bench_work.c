/*
 * bench_work.c - the bytes and FLOPs of a bench case, where its arrays do not say them: each input read once, each
 * output written once, arithmetic as the definition has it. An implementation that reads a key twice or multiplies
 * more is measured against the same numbers. Exponentials, comparisons, norms count no FLOPs: those operations are
 * bound by bytes.
 */
#include "kernels/bench_problem.h"

/* Sums over the sequences of a batch. */
static double sum_prefix(const mb_kernel_case *c)
{
    double sum = 0.0;
    for (int32_t b = 0; b < c->batch; b++)
        sum += c->prefix[b % 4];
    return sum;
}

static double sum_pages(const mb_kernel_case *c)
{
    double sum = 0.0;
    for (int32_t b = 0; b < c->batch; b++)
        sum += (c->prefix[b % 4] + c->page - 1) / c->page;
    return sum;
}

/* Keys that all rows of a prefill see together: row i sees keys below the end of its block, as far as they exist.
 */
static double prefill_pairs(const mb_kernel_case *c)
{
    double pairs = 0.0;
    for (int64_t i = c->n; i < c->n + c->m; i++) {
        int64_t end = (i / c->k + 1) * c->k;
        pairs += (double)(end < c->n + c->m ? end : c->n + c->m);
    }
    return pairs;
}

/* Experts that at least one row has: only their weights must be read. */
static double used_experts(const mb_kernel_case *c)
{
    bool used[MB_EXPERTS_MAX] = {false};
    int32_t chosen[MB_TOP_EXPERTS_MAX];
    mb_random draws = mb_case_expert_draws(c);
    double count = 0.0;
    for (int64_t r = 0; r < c->m; r++) {
        mb_case_draw_experts(c, &draws, chosen);
        for (int32_t k = 0; k < c->chosen; k++) {
            count += used[chosen[k]] ? 0.0 : 1.0;
            used[chosen[k]] = true;
        }
    }
    return count;
}

/* What an option of the case adds. */
static double with(const mb_kernel_case *c, unsigned flag, double amount)
{
    return c->flags & flag ? amount : 0.0;
}

bool mb_bench_work(const mb_kernel_case *c, mb_type type, double *bytes, double *flops)
{
    const double size = (double)mb_type_size(type), m = (double)c->m, n = (double)c->n, k = (double)c->k;
    const double dim = c->head_dim, heads = c->kv_heads, queries = (double)c->batch * c->rows * c->query_heads;
    const double block = (double)c->batch * (c->block_keys ? c->block_keys : c->rows + c->row_offset);
    const double prefix = sum_prefix(c), all_q = queries * dim * size;
    *bytes = *flops = 0.0;
    switch (c->operation) {
    case MB_OP_embed: /* ids, the rows they name, out */
        *bytes = 4.0 * m + 2.0 * m * k * size;
        return true;
    case MB_OP_add_rmsnorm: /* x, weight, out; with delta: delta, x written back */
        *bytes = (m * k * (2.0 + with(c, MB_CASE_DELTA, 2.0)) + k) * size;
        return true;
    case MB_OP_gemm: /* a, weight, bias, out */
        *bytes = (m * k + n * k + m * n + with(c, MB_CASE_BIAS, n)) * size;
        *flops = 2.0 * m * n * k;
        return true;
    case MB_OP_qkv_finish: { /* q|k|v read, q, k, v written, q before RoPE, one row of angles per position, norms
                              */
        double rows = (double)c->batch * c->rows, width = (c->query_heads + 2.0 * heads) * dim;
        *bytes = rows * (2.0 * width + with(c, MB_CASE_PRE, c->query_heads * dim)) * size +
                 rows * (c->k ? k : dim) * 4.0 + with(c, MB_CASE_NORM, 2.0 * dim * size);
        return true;
    }
    case MB_OP_swiglu: /* gate, up, out */
        *bytes = 3.0 * m * k * size;
        return true;
    case MB_OP_top1: /* logits, an id and a probability per row */
        *bytes = m * n * size + 8.0 * m;
        return true;
    case MB_OP_route: /* hidden, gate, bias; logits, an id and a weight for each choice */
        *bytes = (m * k + c->experts * k) * size + with(c, MB_CASE_BIAS, 4.0 * c->experts) + 4.0 * m * c->experts +
                 8.0 * m * c->chosen;
        *flops = 2.0 * m * c->experts * k;
        return true;
    case MB_OP_experts: /* weights of the experts in use, hidden, choices, what is added, out */
        *bytes = (used_experts(c) * 3.0 * n * k + m * k * (2.0 + with(c, MB_CASE_DELTA, 1.0))) * size +
                 8.0 * m * c->chosen;
        *flops = 6.0 * m * c->chosen * n * k;
        return true;
    case MB_OP_attend: /* keys and values of prefix and block, q, out, lse, by-products in fp32 over the prefix
                        */
        *bytes = 2.0 * heads * (prefix + block) * dim * size + 2.0 * all_q + 4.0 * queries;
        *bytes += with(c, MB_CASE_MASS_OUT | MB_CASE_TOKENS, 4.0 * heads * prefix);
        *bytes += with(c, MB_CASE_MASS_OUT | MB_CASE_TILES, 4.0 * heads * prefix / 64.0);
        /* q k^T and p v once each, also with by-products, whose second pass is the implementation's choice */
        *flops = 4.0 * c->rows * c->query_heads * dim * (prefix + block);
        return true;
    case MB_OP_attend_sparse: { /* the same over the keys selected, and the index */
        double keys = (double)c->batch * k * c->page + block;
        *bytes =
            2.0 * heads * keys * dim * size + 2.0 * all_q + 4.0 * queries + 4.0 * heads * c->batch * (k + 1.0);
        *flops = 4.0 * c->rows * c->query_heads * dim * keys;
        return true;
    }
    case MB_OP_attend_prefill: /* q, out, keys and values of all positions that are seen */
        *bytes = (2.0 * m * c->query_heads * dim + 2.0 * heads * (n + m) * dim) * size;
        *flops = 4.0 * c->query_heads * dim * prefill_pairs(c);
        return true;
    case MB_OP_mass: /* keys, q, lse, mass */
        *bytes = heads * prefix * (dim * size + 4.0) + all_q + 4.0 * queries;
        *flops = 2.0 * c->rows * c->query_heads * dim * prefix;
        return true;
    case MB_OP_votes: /* the same, and two statistics per head */
        *bytes = heads * prefix * (dim * size + 4.0) + all_q + 4.0 * queries + 8.0 * heads * c->batch;
        *flops = 2.0 * c->rows * c->query_heads * dim * prefix;
        return true;
    case MB_OP_page_bounds: /* keys, two vectors per page */
        *bytes = heads * (prefix + 2.0 * sum_pages(c)) * dim * size;
        return true;
    case MB_OP_page_scores: { /* bounds, q, a score per page; q+ and q- against the two bounds */
        /* The mean over rows is linear in q+ and q-, which are summed first; maximum and softmax need every row.
         */
        bool linear = c->mode == MB_MERGE_QUERY || c->mode == MB_MERGE_MEAN;
        *bytes = heads * sum_pages(c) * (2.0 * dim * size + 4.0) + all_q;
        *flops = 4.0 * (linear ? heads : (double)c->rows * c->query_heads) * dim * sum_pages(c);
        return true;
    }
    case MB_OP_key_scores: /* keys, q, a score per key; linear, so the rows are summed before the product */
        *bytes = heads * prefix * (dim * size + 4.0) + all_q;
        *flops = 2.0 * heads * prefix * (k > 0.0 ? k : dim) + queries * dim;
        return true;
    case MB_OP_top_k: /* scores; ids and a count per head */
        *bytes = 4.0 * heads * (sum_pages(c) + c->batch * (k + 1.0));
        return true;
    case MB_OP_state_merge:
    case MB_OP_state_downdate: /* two states read, one written: a vector and a log-sum-exp each */
        for (int i = 0; i < 3; i++)
            *bytes += m * (dim * (c->mode >> i & 1 ? 4.0 : size) + 4.0);
        return true;
    case MB_OP_row_distance: /* a, b; distance and norm */
        *bytes = m * (2.0 * dim * size + 8.0);
        return true;
    default: /* the case's arrays say */
        return false;
    }
}
