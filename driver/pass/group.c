/*
 * group.c - decodes of arms that go together, and the gate that holds them to what they give alone.
 *
 * After the first group, the second, the fourth and so on (of a run of 1000 groups: ten times) one arm of it, each
 * time another one, decodes the same request once more, alone. Other tokens make the gate red.
 */
#include "driver/pass/pass.h"

#include <math.h>
#include <string.h>

#define GATE "company does not matter"

int mb_group_gate(mb_run *run, int64_t again, int64_t differ, size_t arm, mb_error *err)
{
    run->alone_again += again;
    run->alone_differ += differ;
    run->differing = differ > 0 && arm < run->arm_count ? arm : run->differing;
    /* What an earlier start of the run found stays found. */
    if (again == 0 || (run->alone_differ == 0 && mb_store_gate_failed(run->store, run->run_id, GATE)))
        return MB_OK;
    mb_text detail = {0};
    mb_text_printf(&detail, "%lld arms of groups decoded again alone: %lld gave other tokens",
                   (long long)run->alone_again, (long long)run->alone_differ);
    if (run->alone_differ)
        mb_text_printf(&detail, ", the last of them %s", run->arms[run->differing].spec->label);
    int rc = detail.failed ? mb_no_memory(err, "a gate")
                           : mb_store_gate(run->store, run->run_id, GATE, run->alone_differ ? "fail" : "pass",
                                           detail.data, err);
    mb_text_free(&detail);
    return rc;
}

static int again_alone(mb_run *run, const mb_pending *pending, const mb_decode_result *together, mb_error *err)
{
    mb_decode_request request = pending->request;
    mb_decode_result alone = {0};
    request.trace = NULL; /* it is recorded already */
    request.selected = NULL;
    int rc = mb_decode(run->session, pending->arm->attender, &request, &alone, err);
    if (rc != MB_OK)
        return rc == MB_E_SAMPLE ? MB_OK : rc;
    bool same = alone.count == together->count && alone.denoise_forwards == together->denoise_forwards &&
                memcmp(alone.ids, together->ids, alone.count * sizeof *alone.ids) == 0;
    mb_decode_result_free(&alone);
    return mb_group_gate(run, 1, !same, (size_t)(pending->arm - run->arms), err);
}

int mb_pending_decode(mb_run *run, const mb_pending *pending, size_t count, mb_group_arm *arms,
                      mb_decode_result *results, mb_error *err)
{
    for (size_t i = 0; i < count; i++)
        arms[i] = (mb_group_arm){
            .attender = pending[i].arm->attender, .request = &pending[i].request, .result = &results[i]};
    int rc = mb_decode_group(run->session, arms, count, err);
    if (rc != MB_OK || count < 2)
        return rc;
    int64_t number = ++run->groups;
    size_t chosen = (size_t)run->alone_again % count;
    bool due = (number & (number - 1)) == 0;
    return due && arms[chosen].rc == MB_OK ? again_alone(run, &pending[chosen], &results[chosen], err) : MB_OK;
}
