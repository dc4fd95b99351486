/*
 * work.c - what the denoising forwards of a decode read: its counters on the device and on the host are begun,
 * added to after every forward, and become the shares of a result.
 *
 * The device counts keys in MB_BUFFER_WORK (attention.c), replayed graphs included; the host counts what a
 * forward's answers say of it. Of a split model each rank has counted its own KV heads.
 */
#include "model/engine/engine.h"
#include "model/engine/team.h"

int mb_work_begin(mb_session *session, mb_error *err)
{
    int rc = mb_session_send_prefix(session, err);
    if (rc != MB_OK)
        return rc;
    rc = session->kernels->fill(session->device, session->buffer[MB_BUFFER_WORK], 0, 4 * sizeof(double));
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "clearing the work counters", err);
}

void mb_work_add(mb_work *work, const mb_session *session, const mb_forward_run *run)
{
    work->layers += run->layers;
    work->sparse_layers += run->sparse_layers;
    work->local_tokens += run->local_tokens;
    for (int32_t b = 0; b < session->batch; b++)
        work->select_tokens += run->select_share * session->prefix[b] * session->config->kv_heads;
}

int mb_work_read(const mb_work *work, mb_session *session, mb_decode_result *result, mb_error *err)
{
    enum { ATTENDED, PRESENT, OPAQUE_ATTENDED, OPAQUE_PRESENT, SELECT, COUNT };
    double all[COUNT] = {[SELECT] = work->select_tokens};
    int rc =
        session->kernels->download(session->device, all, session->buffer[MB_BUFFER_WORK], SELECT * sizeof *all);
    if (rc != MB_OK)
        mb_session_failed(session, rc, "reading the work counters", err);
    if ((rc = mb_session_add(session, rc, all, COUNT, err)) != MB_OK)
        return rc;
    double present = all[PRESENT] + all[OPAQUE_PRESENT] + work->local_tokens;
    result->work = present > 0 ? (all[ATTENDED] + work->local_tokens) / present : 0;
    result->work_select = present > 0 ? all[SELECT] / present : 0;
    result->engaged = work->layers > 0 ? work->sparse_layers / work->layers : 0;
    return MB_OK;
}
