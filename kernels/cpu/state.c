/*
 * state.c - attention states (output, log-sum-exp) over disjoint key sets: merge and downdate; distances of query
 * rows; the count of work. Formulas and guards: methods.md 0.4 (a) and (b).
 *
 * All arithmetic is fp32; an output vector is rounded once, when it is stored. The vector of an empty state
 * (log-sum-exp -INFINITY) is never read, so it may hold anything.
 */
#include "kernels/cpu/cpu.h"

#define STATES 64 /* states of a piece */

typedef struct state_job {
    int64_t states;
    int32_t dim;
    const void *a, *b;
    const float *lse_a, *lse_b;
    void *out;
    float *lse_out, *norm;
    mb_type type_a, type_b, type_out;
} state_job;

static void merge_piece(void *arg, int64_t index, int worker)
{
    const state_job *job = arg;
    int64_t dim = job->dim, last = (index + 1) * STATES < job->states ? (index + 1) * STATES : job->states;
    float a[256], b[256];
    (void)worker;
    for (int64_t i = index * STATES; i < last; i++) {
        float la = job->lse_a[i], lb = job->lse_b[i], m = la > lb ? la : lb;
        float wa = la == -INFINITY ? 0.0f : expf(la - m), wb = lb == -INFINITY ? 0.0f : expf(lb - m);
        float lse = wa + wb > 0.0f ? m + logf(wa + wb) : -INFINITY;
        if (isnan(la) || isnan(lb))
            lse = NAN;
        memset(a, 0, sizeof a);
        memset(b, 0, sizeof b);
        if (la != -INFINITY)
            mb_load_row(job->type_a, job->a, i * dim, dim, a);
        if (lb != -INFINITY)
            mb_load_row(job->type_b, job->b, i * dim, dim, b);
        float total = wa + wb == 0.0f ? 1.0f : wa + wb;
        for (int64_t c = 0; c < dim; c++)
            a[c] = (wa * a[c] + wb * b[c]) / total;
        mb_store_row(job->type_out, job->out, i * dim, dim, a);
        if (job->lse_out)
            job->lse_out[i] = lse;
    }
}

static int check_dim(mb_device *device, const char *operation, int32_t head_dim)
{
    if (head_dim >= 1 && head_dim <= 256)
        return MB_OK;
    return mb_cpu_fail(device, MB_E_BUG, "%s: head_dim %d is not in 1..256", operation, head_dim);
}

int mb_cpu_state_merge(mb_device *device, int64_t states, int32_t head_dim, const void *o_a, mb_type type_a,
                       const float *lse_a, const void *o_b, mb_type type_b, const float *lse_b, void *o_out,
                       mb_type type_out, float *lse_out)
{
    state_job job = {.states = states,
                     .dim = head_dim,
                     .a = o_a,
                     .b = o_b,
                     .lse_a = lse_a,
                     .lse_b = lse_b,
                     .out = o_out,
                     .lse_out = lse_out,
                     .type_a = type_a,
                     .type_b = type_b,
                     .type_out = type_out};
    int rc = check_dim(device, "state_merge", head_dim);
    if (rc == MB_OK)
        mb_cpu_run(device, (states + STATES - 1) / STATES, merge_piece, &job);
    return rc;
}

static void downdate_piece(void *arg, int64_t index, int worker)
{
    const state_job *job = arg;
    int64_t dim = job->dim, last = (index + 1) * STATES < job->states ? (index + 1) * STATES : job->states;
    float total[256], part[256];
    (void)worker;
    for (int64_t i = index * STATES; i < last; i++) {
        float lt = job->lse_a[i], lp = job->lse_b[i], d = lp - lt, lse = lt;
        memset(total, 0, sizeof total);
        memset(part, 0, sizeof part);
        if (lt == -INFINITY || fabsf(expm1f(d)) <= 1e-5f) {
            lse = -INFINITY; /* nothing is left, up to the rounding of two log-sum-exps that were made apart */
        } else {
            mb_load_row(job->type_a, job->a, i * dim, dim, total);
            if (!(d > 0.0f)) { /* a larger part is inconsistent: total stays */
                float share = expf(d);
                lse = lt + logf(fmaxf(1.0f - share + 1e-7f, 1e-30f));
                float scale = expf(lt - lse);
                if (lp != -INFINITY)
                    mb_load_row(job->type_b, job->b, i * dim, dim, part);
                for (int64_t c = 0; c < dim; c++)
                    total[c] = scale * (total[c] - share * part[c]);
            }
        }
        mb_store_row(job->type_out, job->out, i * dim, dim, total);
        if (job->lse_out)
            job->lse_out[i] = lse;
    }
}

int mb_cpu_state_downdate(mb_device *device, int64_t states, int32_t head_dim, const void *o_total,
                          mb_type type_total, const float *lse_total, const void *o_part, mb_type type_part,
                          const float *lse_part, void *o_rest, mb_type type_rest, float *lse_rest)
{
    state_job job = {.states = states,
                     .dim = head_dim,
                     .a = o_total,
                     .b = o_part,
                     .lse_a = lse_total,
                     .lse_b = lse_part,
                     .out = o_rest,
                     .lse_out = lse_rest,
                     .type_a = type_total,
                     .type_b = type_part,
                     .type_out = type_rest};
    int rc = check_dim(device, "state_downdate", head_dim);
    if (rc == MB_OK)
        mb_cpu_run(device, (states + STATES - 1) / STATES, downdate_piece, &job);
    return rc;
}

static void distance_piece(void *arg, int64_t index, int worker)
{
    const state_job *job = arg;
    int64_t dim = job->dim, last = (index + 1) * STATES < job->states ? (index + 1) * STATES : job->states;
    float a[256], b[256];
    (void)worker;
    for (int64_t i = index * STATES; i < last; i++) {
        mb_load_row(job->type_a, job->a, i * dim, dim, a);
        mb_load_row(job->type_b, job->b, i * dim, dim, b);
        for (int64_t c = 0; c < dim; c++)
            a[c] -= b[c];
        job->lse_out[i] = mb_cpu_dot(a, a, dim);
        if (job->norm)
            job->norm[i] = mb_cpu_dot(b, b, dim);
    }
}

int mb_cpu_row_distance(mb_device *device, const void *a, const void *b, int64_t n, int32_t head_dim,
                        float *distance, float *norm)
{
    state_job job = {.states = n,
                     .dim = head_dim,
                     .a = a,
                     .b = b,
                     .lse_out = distance,
                     .norm = norm,
                     .type_a = device->type,
                     .type_b = device->type};
    int rc = check_dim(device, "row_distance", head_dim);
    if (rc == MB_OK)
        mb_cpu_run(device, (n + STATES - 1) / STATES, distance_piece, &job);
    return rc;
}

/* Prefix keys that a KV head of a sequence reads of pages; NULL or a count of -1: all. */
static int64_t keys_read(const mb_pages *pages, int64_t bh, int64_t prefix)
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

int mb_cpu_count_work(mb_device *device, const mb_rows *rows, int32_t kv_heads, const mb_pages *pages,
                      double *tokens)
{
    (void)device;
    for (int64_t bh = 0; bh < (int64_t)rows->batch * kv_heads; bh++) {
        int64_t prefix = rows->prefix_len[bh / kv_heads];
        tokens[0] += (double)keys_read(pages, bh, prefix);
        tokens[1] += (double)prefix;
    }
    return MB_OK;
}

int mb_cpu_count_read(mb_device *device, const mb_rows *rows, int32_t kv_heads, const mb_pages *pages,
                      const int32_t *active, double *tokens)
{
    (void)device;
    for (int64_t bh = 0; bh < (int64_t)rows->batch * kv_heads; bh++)
        if (!active || active[bh])
            *tokens += (double)keys_read(pages, bh, rows->prefix_len[bh / kv_heads]);
    return MB_OK;
}
