/*
 * audit.c - outputs of a method checked while it is being timed: on random denoising forwards the buffers that its
 * hooks should fill hold NaN beforehand, and what they hold afterwards is compared with attention computed again
 * over the index that the method shows. A method that hands out an old output, or a state of other keys than it
 * says, fails its cell. Audited forwards run eagerly and have no time.
 *
 * What cannot be audited is counted and reported: attention without an index, and methods whose states belong to
 * earlier queries by design, all (MB_CAP_REUSE) or in part (MB_CAP_RESIDUAL). Their index is checked all the same.
 */
#include "model/engine/engine.h"

#include "model/checkpoint/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Largest difference of an output vector, relative to the largest value of the vector: two kernels that sum the
 * same terms in another order, rounded to the storage type. And of a log-sum-exp, absolute. */
#define TOLERANCE_BF16 0.04
#define TOLERANCE_F32 1e-3
#define TOLERANCE_LSE 0.02

bool mb_audit_draw(mb_session *session, const mb_forward_run *run)
{
    mb_audit *audit = session->measure.audit;
    if (!audit || run->phase == MB_PHASE_COMMIT || run->shadow_count > 0)
        return false;
    if ((audit->most > 0 && audit->forwards >= audit->most) || mb_random_unit(&audit->random) >= audit->share)
        return false;
    audit->forwards++;
    return true;
}

static size_t state_bytes(const mb_session *session)
{
    return (size_t)session->batch * (size_t)session->block * (size_t)session->config->query_heads *
           (size_t)session->config->head_dim * mb_type_size(session->type);
}

/* Bytes of 0xff: a NaN in every type that is stored here. */
static int poison(mb_session *session, mb_buffer buffer, size_t bytes, mb_error *err)
{
    int rc = session->kernels->fill(session->device, session->buffer[buffer], 0xff, bytes);
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "audit", err);
}

int mb_audit_poison(mb_session *session, mb_error *err)
{
    size_t states = (size_t)session->batch * (size_t)session->block * (size_t)session->config->query_heads;
    int rc = poison(session, MB_BUFFER_ATTENDED, state_bytes(session), err);
    if (rc == MB_OK)
        rc = poison(session, MB_BUFFER_STATE_PREFIX, state_bytes(session), err);
    if (rc == MB_OK)
        rc = poison(session, MB_BUFFER_STATE_BLOCK, state_bytes(session), err);
    if (rc == MB_OK)
        rc = poison(session, MB_BUFFER_LSE_PREFIX, states * sizeof(float), err);
    if (rc == MB_OK)
        rc = poison(session, MB_BUFFER_LSE_BLOCK, states * sizeof(float), err);
    return rc;
}

static int caught(const mb_session *session, const mb_forward_run *run, const mb_call *call, const char *what,
                  mb_error *err)
{
    (void)session;
    return mb_fail(err, MB_E_SAMPLE, "audit of method %s, layer %d, block %d, step %d: %s",
                   run->attender->method.name, call->layer, call->block, call->step, what);
}

/* ---- the index ---- */

/* One (sequence, KV head): ids in range, ascending, distinct. Returns the complaint or NULL; *count is real. */
static const char *check_list(const int32_t *ids, int32_t count, int32_t capacity, int32_t entries)
{
    if (count < -1 || count > capacity)
        return "a count is outside the capacity of its page set";
    for (int32_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= entries)
            return "an index names keys outside the prefix";
        if (i > 0 && ids[i] <= ids[i - 1])
            return "an index is not ascending and distinct";
    }
    return NULL;
}

static int check_index(mb_session *session, const mb_forward_run *run, const mb_call *call, const mb_page_set *set,
                       mb_error *err)
{
    int32_t heads = session->config->kv_heads, sequences = run->batch;
    size_t lists = (size_t)sequences * (size_t)heads, capacity = (size_t)set->capacity;
    int64_t k = session->measure.audit->k;
    int64_t budget = k > 0 ? (k + set->granularity - 1) / set->granularity : 0;
    int32_t *ids = malloc(lists * capacity * sizeof *ids), *counts = malloc(lists * sizeof *counts);
    const char *complaint = NULL;
    int rc = ids && counts ? MB_OK : mb_no_memory(err, "auditing an index");
    if (rc == MB_OK &&
        (session->kernels->download(session->device, ids, set->ids, lists * capacity * sizeof *ids) != MB_OK ||
         session->kernels->download(session->device, counts, set->counts, lists * sizeof *counts) != MB_OK))
        rc = mb_session_failed(session, MB_E_SYSTEM, "audit", err);
    for (int32_t b = 0; rc == MB_OK && !complaint && b < sequences; b++) {
        int32_t entries = (session->prefix[b] + set->granularity - 1) / set->granularity;
        int64_t used = 0;
        bool dense = false;
        for (int32_t h = 0; !complaint && h < heads; h++) {
            size_t list = (size_t)(b * heads + h);
            complaint = check_list(ids + list * capacity, counts[list], set->capacity, entries);
            dense = dense || counts[list] < 0;
            used += counts[list];
        }
        if (!complaint && budget > 0 && !dense && used > budget * heads)
            complaint = "an index is larger than the budget k";
    }
    if (complaint)
        rc = caught(session, run, call, complaint, err);
    free(ids);
    free(counts);
    return rc;
}

/* ---- states ---- */

/* fp32 copy of a device array of the storage type, malloc'ed. */
static float *read_array(mb_session *session, const void *from, mb_type type, size_t n)
{
    void *raw = malloc(n * mb_type_size(type));
    float *values = malloc(n * sizeof *values);
    if (raw && values && session->kernels->download(session->device, raw, from, n * mb_type_size(type)) == MB_OK) {
        mb_type_convert(values, MB_F32, raw, type, n);
    } else {
        free(values);
        values = NULL;
    }
    free(raw);
    return values;
}

/* Compares two arrays of vectors, and their log-sum-exps unless NULL. complaint: room for a sentence. */
static bool same_states(const float *a, const float *b, const float *lse_a, const float *lse_b, size_t states,
                        size_t dim, double tolerance, mb_error *complaint)
{
    for (size_t s = 0; s < states; s++) {
        double scale = 0, worst = 0;
        for (size_t c = 0; c < dim; c++) {
            double x = (double)a[s * dim + c], y = (double)b[s * dim + c], d = fabs(x - y);
            scale = fmax(scale, fabs(y));
            worst = isnan(d) ? INFINITY : fmax(worst, d);
            if (isnan(d))
                break;
        }
        if (worst > tolerance * fmax(scale, 1e-3)) {
            mb_fail(
                complaint, 0,
                isinf(worst)
                    ? "the output of state %zu was not written"
                    : "the output of state %zu differs by %.3g from attention over its index (values up to %.3g)",
                s, worst, scale);
            return false;
        }
        double d = lse_a ? fabs((double)lse_a[s] - (double)lse_b[s]) : 0;
        bool empty = lse_a && isinf(lse_a[s]) && isinf(lse_b[s]);
        if (!empty && !(d <= TOLERANCE_LSE)) {
            mb_fail(complaint, 0, "the log-sum-exp of state %zu is %.6g, over its index it is %.6g", s,
                    (double)lse_a[s], (double)lse_b[s]);
            return false;
        }
    }
    return true;
}

/* Compares what is in two buffers. lse_a NULL: vectors only. */
static int compare(mb_session *session, const mb_forward_run *run, const mb_call *call, const void *a,
                   const void *b, const float *lse_a, const float *lse_b, mb_error *err)
{
    size_t states = (size_t)run->batch * (size_t)run->rows * (size_t)session->config->query_heads;
    size_t dim = (size_t)session->config->head_dim;
    double tolerance = session->type == MB_F32 ? TOLERANCE_F32 : TOLERANCE_BF16;
    float *x = read_array(session, a, session->type, states * dim);
    float *y = read_array(session, b, session->type, states * dim);
    float *p = lse_a ? read_array(session, lse_a, MB_F32, states) : NULL;
    float *q = lse_b ? read_array(session, lse_b, MB_F32, states) : NULL;
    mb_error complaint = {0};
    int rc = MB_OK;
    if (!x || !y || (lse_a && !p) || (lse_b && !q))
        rc = mb_session_failed(session, MB_E_SYSTEM, "audit: reading outputs back", err);
    else if (!same_states(x, y, p, q, states, dim, tolerance, &complaint))
        rc = caught(session, run, call, complaint.text, err);
    free(x);
    free(y);
    free(p);
    free(q);
    session->measure.audit->layers++;
    return rc;
}

int mb_audit_sparse(mb_session *session, const mb_forward_run *run, const mb_call *call, const mb_attention *args,
                    const mb_page_set *set, mb_error *err)
{
    mb_attention again = *args;
    int rc = check_index(session, run, call, set, err);
    if (rc != MB_OK)
        return rc;
    again.out = session->buffer[MB_BUFFER_STATE_BLOCK]; /* poisoned before select() */
    again.lse = session->buffer[MB_BUFFER_LSE_BLOCK];
    rc = session->kernels->attend_sparse(session->device, &again);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "audit", err);
    return compare(session, run, call, args->out, again.out, NULL, NULL, err);
}

int mb_audit_state(mb_session *session, const mb_forward_run *run, const mb_call *call, const mb_page_set *set,
                   mb_error *err)
{
    uint64_t caps = run->attender->method.caps;
    int rc = set && !(caps & MB_CAP_OPAQUE) ? check_index(session, run, call, set, err) : MB_OK;
    if (rc != MB_OK)
        return rc;
    if (!set || (caps & (MB_CAP_OPAQUE | MB_CAP_REUSE | MB_CAP_RESIDUAL))) {
        session->measure.audit->opaque++;
        return MB_OK;
    }
    mb_attention args = mb_call_attention(call);
    args.scope = MB_SCOPE_PREFIX;
    args.pages = set;
    args.out = session->buffer[MB_BUFFER_STATE_BLOCK];
    args.lse = session->buffer[MB_BUFFER_LSE_BLOCK];
    rc = session->kernels->attend_sparse(session->device, &args);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "audit", err);
    return compare(session, run, call, session->buffer[MB_BUFFER_STATE_PREFIX], args.out,
                   session->buffer[MB_BUFFER_LSE_PREFIX], args.lse, err);
}
