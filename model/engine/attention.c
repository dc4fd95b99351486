/*
 * attention.c - the attention of one layer of one forward, as the attender decides: exactly with by-products,
 * over a selection, or by the method itself with the current block merged in. In a shadow run the leader must
 * answer dense, and everybody else is asked on the same queries afterwards.
 *
 * Work is counted on the device for denoising forwards: prefix keys attended against prefix keys present. An
 * opaque call (a method's own attention without an index) counts its prefix keys but none attended; what it read
 * the method tells by count_read(), or declares in select_tokens.
 */
#include "model/engine/engine.h"
#include "model/checkpoint/config.h"

#include <math.h>
#include <string.h>

static int failed(const mb_session *session, int rc, int32_t layer, const char *what, mb_error *err)
{
    return mb_fail(err, rc, "layer %d, %s: %s", layer, what, session->kernels->error(session->device));
}

/* A broken promise of a method fails only its own cell. */
static int refused(const mb_attender *attender, const mb_call *call, const char *what, mb_error *err)
{
    return mb_fail(err, MB_E_SAMPLE, "method %s, layer %d, block %d, step %d: %s", attender->method.name,
                   call->layer, call->block, call->step, what);
}

static int count_work(mb_session *session, const mb_forward_run *run, const mb_rows *rows, const mb_page_set *set,
                      bool opaque)
{
    double *work = (double *)session->buffer[MB_BUFFER_WORK] + (opaque ? 2 : 0);
    if (run->phase == MB_PHASE_COMMIT || !session->measure.counting)
        return MB_OK;
    return session->kernels->count_work(
        session->device,
        &(mb_key_count){.rows = *rows, .kv_heads = session->config->kv_heads, .pages = set, .tokens = work});
}

/* Whether what observe() does may run beside the rest of the layer in a graph: it does not read the layer's
 * output, and while the weights outweigh the keys the products leave the multiprocessors half idle. Counting is
 * left out, since both sides would add to the same sums; so is a commit, whose kv_added() follows at once and may
 * write what observe() reads (the method's memory, the scratch). */
static bool runs_beside(const mb_session *session, const mb_forward_run *run, int32_t layer)
{
    const mb_model_config *c = session->config;
    double width = (double)(2 * c->query_heads + 2 * c->kv_heads) * c->head_dim;
    double weights = (width + 3.0 * (double)mb_layer_inner(c, layer)) * (double)c->hidden;
    double keys = (double)run->batch * c->kv_heads * c->head_dim * (double)run->max_prefix;
    return session->kernels->branch_begin && run->shadow_count == 0 && !session->measure.counting &&
           run->phase != MB_PHASE_COMMIT && 2.0 * keys <= weights;
}

/* observe() on a branch of its own, with the mass where that is wanted. */
static int observe_beside(mb_session *session, mb_forward_run *run, mb_call *call, const mb_attention *args,
                          const mb_selection *selection, bool along, mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    void *stream = call->stream;
    int rc = kernels->branch_begin(session->device);
    if (rc != MB_OK)
        return failed(session, rc, call->layer, "a branch of the graph", err);
    call->stream = kernels->stream ? kernels->stream(session->device) : NULL;
    if (along && (rc = kernels->mass(session->device, args)) != MB_OK)
        failed(session, rc, call->layer, "attention mass", err);
    if (rc == MB_OK)
        rc = mb_attender_observe(run->attender, call, selection, args->lse, along ? args->mass : NULL, err);
    call->stream = stream;
    int end = kernels->branch_end(session->device);
    return rc == MB_OK && end != MB_OK ? failed(session, end, call->layer, "a branch of the graph", err) : rc;
}

/* Exact attention, with what observe() and the shadows want to see. */
static int attend_dense(mb_session *session, mb_forward_run *run, mb_call *call, mb_attention *args,
                        const mb_selection *selection, mb_error *err)
{
    bool mass = selection->want & MB_WANT_MASS, watched = selection->want != 0;
    bool beside = watched && runs_beside(session, run, call->layer);
    args->scope = MB_SCOPE_ALL;
    if (watched || run->shadow_count > 0)
        args->lse = session->buffer[MB_BUFFER_LSE];
    bool along = mass && selection->normaliser == MB_OVER_ALL; /* the mass comes with the attention */
    mb_attention with_mass = *args;
    if (along) {
        with_mass.mass = session->buffer[MB_BUFFER_MASS];
        with_mass.mass_stride = session->stride;
        with_mass.row_weight = mb_call_row_weight(call, selection->rows);
    }
    int rc = session->kernels->attend(session->device, beside ? args : &with_mass);
    if (rc != MB_OK)
        return failed(session, rc, call->layer, "attention", err);
    if (beside)
        return observe_beside(session, run, call, &with_mass, selection, along, err);
    if (watched)
        rc = mb_attender_observe(run->attender, call, selection, args->lse, along ? with_mass.mass : NULL, err);
    if (rc == MB_OK && run->shadow_count > 0)
        rc = mb_shadows_ask(session, run, run->ranking, ((const mb_call_view *)call->internal)->layer,
                            session->buffer[MB_BUFFER_LSE], err);
    return rc;
}

/* The method's own prefix state, merged with the exact attention of the block. */
static int attend_own(mb_session *session, mb_forward_run *run, const mb_call *call, mb_attention *args,
                      const mb_page_set *set, mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    void **buffer = session->buffer;
    int rc =
        mb_attender_attend(run->attender, call, buffer[MB_BUFFER_STATE_PREFIX], buffer[MB_BUFFER_LSE_PREFIX], err);
    if (rc == MB_OK && run->checked)
        rc = mb_check_state(run->attender, call, err);
    if (rc == MB_OK && run->audited)
        rc = mb_audit_state(session, run, call, set, err);
    if (rc != MB_OK)
        return rc;
    void *out = args->out;
    args->scope = MB_SCOPE_BLOCK;
    args->out = buffer[MB_BUFFER_STATE_BLOCK];
    args->lse = buffer[MB_BUFFER_LSE_BLOCK];
    rc = kernels->attend(session->device, args);
    if (rc == MB_OK)
        rc = kernels->state_merge(
            session->device,
            &(mb_state_pair){.states = (int64_t)call->rows * run->batch * session->config->query_heads,
                             .head_dim = session->config->head_dim,
                             .a = {buffer[MB_BUFFER_STATE_PREFIX], buffer[MB_BUFFER_LSE_PREFIX], 0},
                             .b = {args->out, args->lse, 0},
                             .out = {out, buffer[MB_BUFFER_LSE], 0}});
    return rc == MB_OK ? MB_OK : failed(session, rc, call->layer, "merging the block", err);
}

/* An index is counted on a branch of a lane's graph, beside the attention over it: that reads the same index and
 * nobody else adds to the sums meanwhile. */
static int count_beside(mb_session *session, const mb_forward_run *run, const mb_rows *rows,
                        const mb_page_set *set, mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    int rc = kernels->branch_begin(session->device);
    if (rc == MB_OK)
        rc = count_work(session, run, rows, set, false);
    int end = kernels->branch_end(session->device);
    rc = rc == MB_OK ? end : rc;
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "counting work", err);
}

/* What select() answered: usable, and looked at where somebody does. */
static int check_answer(mb_forward_run *run, const mb_call *call, const mb_selection *selection,
                        const mb_page_set *set, mb_error *err)
{
    if (selection->answer != MB_DENSE && run->shadow_count > 0)
        return refused(run->attender, call, "the method that leads a shadow pass must attend exactly", err);
    if ((selection->answer == MB_SPARSE || set) && !mb_check_shape(set))
        return refused(run->attender, call, "select() gave no usable page set", err);
    if (!(selection->select_tokens >= 0) || isinf(selection->select_tokens))
        return refused(run->attender, call,
                       "select() says that it read a number of tokens that is negative or no "
                       "number (select_tokens)",
                       err);
    int rc = MB_OK;
    if (run->checked)
        rc = set ? mb_check_pages(run->attender, call, set, err) : mb_check_guards(run->attender, call, err);
    return rc == MB_OK && run->watcher ? mb_tell_selected(run->attender, run, call, set, err) : rc;
}

int mb_layer_attention(mb_session *session, mb_forward_run *run, int32_t layer, mb_error *err)
{
    mb_call call;
    mb_call_view view;
    mb_selection selection;
    mb_call_make(session, run, layer, &call, &view);
    int rc = run->audited ? mb_audit_poison(session, err) : MB_OK;
    if (rc == MB_OK)
        rc = mb_attender_select(run->attender, &call, &selection, err);
    if (rc != MB_OK)
        return rc;
    mb_attention args = mb_call_attention(&call);
    args.out = session->buffer[MB_BUFFER_ATTENDED];
    const mb_page_set *set = selection.answer == MB_DENSE ? NULL : selection.pages;
    if ((rc = check_answer(run, &call, &selection, set, err)) != MB_OK)
        return rc;
    const bool beside = run->part && run->phase != MB_PHASE_COMMIT && selection.answer == MB_SPARSE &&
                        session->kernels->branch_begin;
    if (beside && (rc = count_beside(session, run, &view.rows, set, err)) != MB_OK)
        return rc;
    switch (selection.answer) {
    case MB_DENSE:
        rc = attend_dense(session, run, &call, &args, &selection, err);
        break;
    case MB_SPARSE:
        args.pages = set;
        rc = session->kernels->attend_sparse(session->device, &args);
        if (rc != MB_OK)
            failed(session, rc, layer, "sparse attention", err);
        else if (run->audited)
            rc = mb_audit_sparse(session, run, &call, &args, set, err);
        break;
    case MB_ATTEND:
        rc = attend_own(session, run, &call, &args, set, err);
        break;
    default:
        return refused(run->attender, &call, "select() gave an answer that does not exist", err);
    }
    if (rc != MB_OK)
        return rc;
    if (run->max_prefix > 0)
        run->select_share += selection.select_tokens / run->max_prefix;
    run->layers++;
    run->sparse_layers += selection.answer != MB_DENSE;
    if (beside)
        return MB_OK;
    rc = count_work(session, run, &view.rows, set, selection.answer == MB_ATTEND && !set);
    return rc == MB_OK ? MB_OK : failed(session, rc, layer, "counting work", err);
}
