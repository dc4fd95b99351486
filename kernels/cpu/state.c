/*
 * state.c - attention states (output, log-sum-exp) over disjoint key sets: merge and downdate; distances of query
 * rows; the count of work.
 *
 * merge      L = m + log(w1 + w2), m = max(L1, L2), wi = exp(Li - m);   o = (w1 o1 + w2 o2) / (w1 + w2)
 * downdate   s = exp(Lp - Lt);   L = Lt + log(1 - s);   o = exp(Lt - L) (ot - s op)
 * Guards of downdate: nothing is left where |1 - s| <= 1e-5 (L = -INFINITY, o = 0); a part larger than the total
 * is inconsistent and leaves the total as it is; 1e-7 is added under the logarithm. Formulas after the
 * authors' code of arXiv 2604.00235.
 *
 * All arithmetic is fp32; an output vector is rounded once, when it is stored. The vector of an empty state
 * (log-sum-exp -INFINITY) is never read, so it may hold anything.
 */
#include "kernels/cpu/cpu.h"

#define STATES 64 /* states of a piece */

static mb_type type_of(const mb_device *device, const mb_state *state)
{
    return state->fp32 ? MB_F32 : device->type;
}

typedef struct state_job {
    const mb_device *device;
    const mb_state_pair *args;
} state_job;

static int64_t end_of_piece(int64_t index, int64_t n)
{
    return (index + 1) * STATES < n ? (index + 1) * STATES : n;
}

static void merge_piece(void *arg, int64_t index, int worker)
{
    const state_job *job = arg;
    const mb_state_pair *args = job->args;
    int64_t dim = args->head_dim, last = end_of_piece(index, args->states);
    mb_type type_a = type_of(job->device, &args->a), type_b = type_of(job->device, &args->b);
    float a[MB_CPU_MOST_DIM], b[MB_CPU_MOST_DIM];
    (void)worker;
    for (int64_t i = index * STATES; i < last; i++) {
        float la = args->a.lse[i], lb = args->b.lse[i], m = la > lb ? la : lb;
        float wa = la == -INFINITY ? 0.0f : expf(la - m), wb = lb == -INFINITY ? 0.0f : expf(lb - m);
        float lse = wa + wb > 0.0f ? m + logf(wa + wb) : -INFINITY;
        if (isnan(la) || isnan(lb))
            lse = NAN;
        memset(a, 0, sizeof a);
        memset(b, 0, sizeof b);
        if (la != -INFINITY)
            mb_load_row(type_a, args->a.o, i * dim, dim, a);
        if (lb != -INFINITY)
            mb_load_row(type_b, args->b.o, i * dim, dim, b);
        float total = wa + wb == 0.0f ? 1.0f : wa + wb;
        for (int64_t c = 0; c < dim; c++)
            a[c] = (wa * a[c] + wb * b[c]) / total;
        mb_store_row(type_of(job->device, &args->out), args->out.o, i * dim, dim, a);
        if (args->out.lse)
            args->out.lse[i] = lse;
    }
}

static int check_dim(mb_device *device, const char *operation, int32_t head_dim)
{
    if (head_dim >= 1 && head_dim <= MB_CPU_MOST_DIM)
        return MB_OK;
    return mb_cpu_fail(device, MB_E_BUG, "%s: head_dim %d is not in 1..%d", operation, head_dim, MB_CPU_MOST_DIM);
}

static int run_states(mb_device *device, const char *operation, const mb_state_pair *args, mb_cpu_piece *piece)
{
    state_job job = {device, args};
    int rc = check_dim(device, operation, args->head_dim);
    if (rc == MB_OK)
        mb_cpu_run(device, (args->states + STATES - 1) / STATES, piece, &job);
    return rc;
}

int mb_cpu_state_merge(mb_device *device, const mb_state_pair *args)
{
    return run_states(device, "state_merge", args, merge_piece);
}

static void downdate_piece(void *arg, int64_t index, int worker)
{
    const state_job *job = arg;
    const mb_state_pair *args = job->args;
    int64_t dim = args->head_dim, last = end_of_piece(index, args->states);
    float total[MB_CPU_MOST_DIM], part[MB_CPU_MOST_DIM];
    (void)worker;
    for (int64_t i = index * STATES; i < last; i++) {
        float lt = args->a.lse[i], lp = args->b.lse[i], d = lp - lt, lse = lt;
        memset(total, 0, sizeof total);
        memset(part, 0, sizeof part);
        if (lt == -INFINITY || fabsf(expm1f(d)) <= 1e-5f) {
            lse = -INFINITY; /* nothing is left, up to the rounding of two log-sum-exps that were made apart */
        } else {
            mb_load_row(type_of(job->device, &args->a), args->a.o, i * dim, dim, total);
            if (!(d > 0.0f)) { /* a larger part is inconsistent: total stays */
                float share = expf(d);
                lse = lt + logf(fmaxf(1.0f - share + 1e-7f, 1e-30f));
                float scale = expf(lt - lse);
                if (lp != -INFINITY)
                    mb_load_row(type_of(job->device, &args->b), args->b.o, i * dim, dim, part);
                for (int64_t c = 0; c < dim; c++)
                    total[c] = scale * (total[c] - share * part[c]);
            }
        }
        mb_store_row(type_of(job->device, &args->out), args->out.o, i * dim, dim, total);
        if (args->out.lse)
            args->out.lse[i] = lse;
    }
}

int mb_cpu_state_downdate(mb_device *device, const mb_state_pair *args)
{
    return run_states(device, "state_downdate", args, downdate_piece);
}

typedef struct distance_job {
    mb_type type;
    const mb_row_distance *args;
} distance_job;

static void distance_piece(void *arg, int64_t index, int worker)
{
    const distance_job *job = arg;
    const mb_row_distance *args = job->args;
    int64_t dim = args->head_dim, last = end_of_piece(index, args->n);
    float a[MB_CPU_MOST_DIM], b[MB_CPU_MOST_DIM];
    (void)worker;
    for (int64_t i = index * STATES; i < last; i++) {
        mb_load_row(job->type, args->a, i * dim, dim, a);
        mb_load_row(job->type, args->b, i * dim, dim, b);
        for (int64_t c = 0; c < dim; c++)
            a[c] -= b[c];
        args->distance[i] = mb_cpu_dot(a, a, dim);
        if (args->norm)
            args->norm[i] = mb_cpu_dot(b, b, dim);
    }
}

int mb_cpu_row_distance(mb_device *device, const mb_row_distance *args)
{
    distance_job job = {device->type, args};
    int rc = check_dim(device, "row_distance", args->head_dim);
    if (rc == MB_OK)
        mb_cpu_run(device, (args->n + STATES - 1) / STATES, distance_piece, &job);
    return rc;
}

/* Prefix keys that a KV head of a sequence reads of pages; NULL or a count of -1: all. */
static int64_t keys_read(const mb_page_set *pages, int64_t bh, int64_t prefix)
{
    int64_t read = 0;
    if (!pages || pages->counts[bh] < 0)
        return prefix;
    const int32_t *ids = pages->ids + bh * pages->capacity;
    for (int32_t i = 0; i < pages->counts[bh] && i < pages->capacity; i++) {
        int64_t left = prefix - (int64_t)ids[i] * pages->granularity;
        read += left < 0 ? 0 : left < pages->granularity ? left : pages->granularity;
    }
    return read;
}

int mb_cpu_count_work(mb_device *device, const mb_key_count *args)
{
    const mb_rows *rows = &args->rows;
    for (int64_t bh = 0; bh < (int64_t)rows->batch * args->kv_heads; bh++)
        args->tokens[1] += (double)rows->prefix_len[bh / args->kv_heads];
    return mb_cpu_count_read(device, args);
}

int mb_cpu_count_read(mb_device *device, const mb_key_count *args)
{
    const mb_rows *rows = &args->rows;
    (void)device;
    for (int64_t bh = 0; bh < (int64_t)rows->batch * args->kv_heads; bh++)
        if (!args->active || args->active[bh])
            args->tokens[0] += (double)keys_read(args->pages, bh, rows->prefix_len[bh / args->kv_heads]);
    return MB_OK;
}
