/*
 * ranks.c - the calls on models, sessions and attenders that go to all ranks of a split model, and what ranks tell
 * each other on the way.
 *
 * Every rank runs the same host code on its slice: the same prompt, sampler and method, in the same order, so that
 * their sums meet. What is decided by numbers (the best tokens, logits to draw from) is rank 0's everywhere. What
 * a rank alone can tell (a hook that failed, an interrupt) becomes everyone's by mb_session_agree().
 */
#include "model/engine/engine.h"
#include "model/engine/team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- one rank's own ---- */

static mb_model *model_of(mb_model *model, int32_t rank)
{
    return rank == 0 ? model : model->peers[rank];
}

static mb_session *session_of(mb_session *session, int32_t rank)
{
    return rank == 0 ? session : session->peers[rank];
}

static mb_attender *attender_of(mb_attender *attender, int32_t rank)
{
    return rank == 0 ? attender : attender->peers[rank];
}

/* ---- models ---- */

struct model_job {
    mb_team *team;
    mb_model *models[MB_RANKS_MAX];
    const mb_model_request *request;
    mb_type type;
    const int32_t *ids;
    size_t n;
    float **logits;
};

static int model_open(void *user, int32_t rank, mb_error *err)
{
    struct model_job *j = user;
    return mb_model_open_rank(&j->models[rank], j->request, mb_team_place(j->team, rank), j->type, err);
}

static int model_close(void *user, int32_t rank, mb_error *err)
{
    struct model_job *j = user;
    (void)err;
    mb_model_close(j->models[rank]);
    return MB_OK;
}

int mb_team_model_open(mb_model **model, const mb_model_request *request, mb_type type, mb_error *err)
{
    struct model_job job = {.team = request->team, .request = request, .type = type};
    mb_model **peers = calloc(MB_RANKS_MAX, sizeof *peers);
    *model = NULL;
    if (!peers)
        return mb_no_memory(err, "opening the model");
    int rc = mb_team_run(job.team, model_open, &job, err);
    if (rc != MB_OK) {
        mb_team_run(job.team, model_close, &job, NULL);
        free(peers);
        return rc;
    }
    memcpy(peers, job.models, sizeof job.models);
    *model = job.models[0];
    (*model)->peers = peers;
    (*model)->team = job.team;
    return MB_OK;
}

void mb_team_model_close(mb_model *model)
{
    struct model_job job = {.team = model->team};
    for (int32_t r = 0; r < mb_team_ranks(job.team); r++)
        job.models[r] = model_of(model, r);
    mb_team_run(job.team, model_close, &job, NULL);
}

static int model_logits(void *user, int32_t rank, mb_error *err)
{
    struct model_job *j = user;
    float *unread = NULL;
    int rc = mb_model_logits(j->models[rank], j->ids, j->n, rank == 0 ? j->logits : &unread, err);
    free(unread);
    return rc;
}

int mb_team_logits(mb_model *model, const int32_t *ids, size_t n, float **logits, mb_error *err)
{
    struct model_job job = {.team = model->team, .ids = ids, .n = n, .logits = logits};
    for (int32_t r = 0; r < mb_team_ranks(job.team); r++)
        job.models[r] = model_of(model, r);
    return mb_team_run(job.team, model_logits, &job, err);
}

/* ---- sessions ---- */

struct session_job {
    mb_model *model;
    mb_session *sessions[MB_RANKS_MAX];
    const mb_session_request *request;
    int32_t sequence, tokens;
    const int32_t *ids;
    size_t n;
    uint64_t seed;
    double *us;
};

static struct session_job job_of(mb_session *session)
{
    struct session_job job = {.model = session->model};
    for (int32_t r = 0; r < session->ranks; r++)
        job.sessions[r] = session_of(session, r);
    return job;
}

static int session_open(void *user, int32_t rank, mb_error *err)
{
    struct session_job *j = user;
    return mb_session_open(&j->sessions[rank], model_of(j->model, rank), j->request, err);
}

static int session_close(void *user, int32_t rank, mb_error *err)
{
    struct session_job *j = user;
    (void)err;
    mb_session_close(j->sessions[rank]);
    return MB_OK;
}

int mb_team_session_open(mb_session **session, mb_model *model, const mb_session_request *request, mb_error *err)
{
    struct session_job job = {.model = model, .request = request};
    mb_session **peers = calloc(MB_RANKS_MAX, sizeof *peers);
    *session = NULL;
    if (!peers)
        return mb_no_memory(err, "a session");
    int rc = mb_team_run(model->team, session_open, &job, err);
    if (rc != MB_OK) {
        mb_team_run(model->team, session_close, &job, NULL);
        free(peers);
        return rc;
    }
    memcpy(peers, job.sessions, sizeof job.sessions);
    *session = job.sessions[0];
    (*session)->peers = peers;
    (*session)->team = model->team;
    return MB_OK;
}

void mb_team_session_close(mb_session *session)
{
    struct session_job job = job_of(session);
    mb_team_run(session->team, session_close, &job, NULL);
}

static int session_prefill(void *user, int32_t rank, mb_error *err)
{
    struct session_job *j = user;
    return mb_session_prefill(j->sessions[rank], j->sequence, j->ids, j->n, rank == 0 ? j->us : NULL, err);
}

int mb_team_prefill(mb_session *session, int32_t sequence, const int32_t *ids, size_t n, double *us, mb_error *err)
{
    struct session_job job = job_of(session);
    job.sequence = sequence;
    job.ids = ids;
    job.n = n;
    job.us = us;
    return mb_team_run(session->team, session_prefill, &job, err);
}

static int session_fill(void *user, int32_t rank, mb_error *err)
{
    struct session_job *j = user;
    return mb_session_fill_random(j->sessions[rank], j->tokens, j->seed, err);
}

int mb_team_fill_random(mb_session *session, int32_t tokens, uint64_t seed, mb_error *err)
{
    struct session_job job = job_of(session);
    job.tokens = tokens;
    job.seed = seed;
    return mb_team_run(session->team, session_fill, &job, err);
}

/* What peers take from rank 0's session before a run. They do what it does, and only it is looked at. */
static void no_profile(void *user, const mb_profile_report *report)
{
    (void)user, (void)report;
}

void mb_team_measure(mb_session *session)
{
    for (int32_t r = 1; session->peers && r < session->ranks; r++) {
        mb_session *peer = session->peers[r];
        peer->measure = session->measure;
        peer->measure.forward = NULL;
        peer->measure.profile = session->measure.profile ? no_profile : NULL;
        peer->graphs = session->graphs;
        peer->rotation = session->rotation;
        if (session->measure.audit) {
            peer->audit = *session->measure.audit; /* the same random numbers: the same forwards are audited */
            peer->measure.audit = &peer->audit;
        }
    }
}

/* ---- attenders ---- */

struct attender_job {
    mb_session *session;
    mb_attender *attenders[MB_RANKS_MAX];
    const mb_method *method;
    const void *options;
    int32_t steps;
    uint64_t seed;
    bool unsupported[MB_RANKS_MAX];
};

static int attender_open(void *user, int32_t rank, mb_error *err)
{
    struct attender_job *j = user;
    return mb_attender_open(&j->attenders[rank], session_of(j->session, rank), j->method, j->options, j->steps,
                            j->seed, &j->unsupported[rank], err);
}

static int attender_close(void *user, int32_t rank, mb_error *err)
{
    struct attender_job *j = user;
    (void)err;
    mb_attender_close(j->attenders[rank]);
    return MB_OK;
}

int mb_team_attender_open(mb_attender **attender, mb_session *session, const mb_method *method,
                          const void *options, int32_t steps, uint64_t seed, bool *unsupported, mb_error *err)
{
    struct attender_job job = {
        .session = session, .method = method, .options = options, .steps = steps, .seed = seed};
    mb_attender **peers = calloc(MB_RANKS_MAX, sizeof *peers);
    *attender = NULL;
    if (!peers)
        return mb_no_memory(err, "method %s", method->name);
    int rc = mb_team_run(session->team, attender_open, &job, err);
    for (int32_t r = 0; unsupported && r < session->ranks; r++)
        *unsupported = (r > 0 && *unsupported) || job.unsupported[r];
    if (rc != MB_OK) {
        mb_team_run(session->team, attender_close, &job, NULL);
        free(peers);
        return rc;
    }
    memcpy(peers, job.attenders, sizeof job.attenders);
    *attender = job.attenders[0];
    (*attender)->peers = peers;
    return MB_OK;
}

void mb_team_attender_close(mb_attender *attender)
{
    struct attender_job job = {.session = attender->session};
    for (int32_t r = 0; r < attender->session->ranks; r++)
        job.attenders[r] = attender_of(attender, r);
    mb_team_run(attender->session->team, attender_close, &job, NULL);
}

void mb_team_watch(mb_attender *attender)
{
    for (int32_t r = 1; attender->peers && r < attender->session->ranks; r++) {
        mb_attender *peer = attender->peers[r];
        peer->note = attender->note ? &peer->own_note : NULL;
        peer->budget = attender->budget;
    }
}

/* ---- decoding ---- */

struct decode_job {
    mb_session *session;
    mb_attender *attender;
    mb_attender *const *shadows;
    size_t shadow_count;
    const mb_decode_request *request;
    int32_t blocks, steps;
    const volatile int *stop;
    mb_decode_result *result;
    mb_recall *recalls;
};

static void unseen(void *user, const mb_selected *what)
{
    (void)user, (void)what;
}

/* The same request to all; who looks on looks at rank 0, and so does who stops it. */
static mb_decode_request request_of(const mb_decode_request *request, int32_t rank)
{
    mb_decode_request own = *request;
    if (rank > 0) {
        own.trace = NULL;
        own.selected = request->selected ? unseen : NULL;
        own.stop = NULL;
    }
    return own;
}

static int decode_rank(void *user, int32_t rank, mb_error *err)
{
    struct decode_job *j = user;
    mb_decode_request request = request_of(j->request, rank);
    mb_decode_result unread = {0};
    int rc = mb_decode(session_of(j->session, rank), attender_of(j->attender, rank), &request,
                       rank == 0 ? j->result : &unread, err);
    mb_decode_result_free(&unread);
    return rc;
}

int mb_team_decode(mb_session *session, mb_attender *attender, const mb_decode_request *request,
                   mb_decode_result *result, mb_error *err)
{
    struct decode_job job = {.session = session, .attender = attender, .request = request, .result = result};
    mb_team_measure(session);
    return mb_team_run(session->team, decode_rank, &job, err);
}

static int shadow_rank(void *user, int32_t rank, mb_error *err)
{
    struct decode_job *j = user;
    mb_decode_request request = request_of(j->request, rank);
    mb_decode_result unread = {0};
    size_t n = j->shadow_count ? j->shadow_count : 1;
    mb_attender **shadows = calloc(n, sizeof *shadows);
    mb_recall *recalls = calloc(n, sizeof *recalls);
    int rc = shadows && recalls ? MB_OK : mb_no_memory(err, "%zu shadows", n);
    /* Without memory this rank would leave the others waiting in their first sum. */
    rc = mb_session_agree(session_of(j->session, rank), rc, NULL, 0, err);
    for (size_t i = 0; rc == MB_OK && i < j->shadow_count; i++)
        shadows[i] = attender_of(j->shadows[i], rank);
    if (rc == MB_OK)
        rc = mb_decode_shadow(session_of(j->session, rank), attender_of(j->attender, rank), shadows,
                              j->shadow_count, &request, rank == 0 ? j->result : &unread,
                              rank == 0 ? j->recalls : recalls, err);
    for (size_t i = 0; recalls && i < j->shadow_count; i++)
        mb_recall_free(&recalls[i]);
    mb_decode_result_free(&unread);
    free(recalls);
    free(shadows);
    return rc;
}

int mb_team_decode_shadow(mb_session *session, mb_attender *exact, mb_attender *const *shadows,
                          size_t shadow_count, const mb_decode_request *request, mb_decode_result *result,
                          mb_recall *recalls, mb_error *err)
{
    struct decode_job job = {.session = session,
                             .attender = exact,
                             .shadows = shadows,
                             .shadow_count = shadow_count,
                             .request = request,
                             .result = result,
                             .recalls = recalls};
    mb_team_measure(session);
    return mb_team_run(session->team, shadow_rank, &job, err);
}

static int fixed_rank(void *user, int32_t rank, mb_error *err)
{
    struct decode_job *j = user;
    mb_decode_result unread = {0};
    int rc = mb_decode_fixed_work(session_of(j->session, rank), attender_of(j->attender, rank), j->blocks,
                                  j->steps, rank == 0 ? j->stop : NULL, rank == 0 ? j->result : &unread, err);
    mb_decode_result_free(&unread);
    return rc;
}

int mb_team_fixed_work(mb_session *session, mb_attender *attender, int32_t blocks, int32_t steps,
                       const volatile int *stop, mb_decode_result *result, mb_error *err)
{
    struct decode_job job = {.session = session,
                             .attender = attender,
                             .blocks = blocks,
                             .steps = steps,
                             .stop = stop,
                             .result = result};
    mb_team_measure(session);
    return mb_team_run(session->team, fixed_rank, &job, err);
}

/* ---- what ranks tell each other ---- */

int mb_session_sum(mb_session *session, void *data, int64_t n, const char *what, mb_error *err)
{
    mb_comm *comm = session->comm;
    if (!comm)
        return MB_OK;
    session->owed--;
    int rc = mb_comm_sum(comm, data, n, session->type);
    return rc == MB_OK ? rc : mb_session_failed(session, rc, what, err);
}

int mb_session_agree(mb_session *session, int rc, void *data, size_t bytes, mb_error *err)
{
    mb_comm *comm = session->comm;
    return comm ? mb_comm_agree(comm, rc, data, bytes, err) : rc;
}

int mb_session_quit(mb_session *session, int rc, int64_t n)
{
    if (session->comm)
        mb_comm_quit(session->comm, session->owed, session->buffer[MB_BUFFER_DELTA], n * session->config->hidden,
                     session->type);
    session->owed = 0;
    return rc;
}

int mb_session_add(mb_session *session, int rc, double *values, size_t n, mb_error *err)
{
    mb_comm *comm = session->comm;
    if (!comm)
        return rc;
    const size_t ranks = (size_t)mb_comm_ranks(comm);
    double *all = malloc(ranks * n * sizeof *all);
    if (rc == MB_OK && !all)
        rc = mb_no_memory(err, "adding up over %zu ranks", ranks);
    rc = mb_session_agree(session, rc, NULL, 0, err);
    if (rc == MB_OK)
        rc = mb_comm_gather(comm, values, n * sizeof *values, all);
    for (size_t i = 0; rc == MB_OK && i < n; i++) {
        values[i] = 0;
        for (size_t r = 0; r < ranks; r++)
            values[i] += all[r * n + i];
    }
    free(all);
    return rc;
}

/* ---- counters ---- */

/* A value more; NaN is no value. n counts what went into a mean. */
static double join(const char *aggregate, double all, double value, int *n)
{
    if (isnan(value))
        return all;
    ++*n;
    if (*n == 1)
        return value;
    return strcmp(aggregate, "max") == 0 ? fmax(all, value) : all + value;
}

int mb_session_join_counters(mb_session *session, int rc, const mb_counter *counters, double *values, size_t count,
                             mb_error *err)
{
    double all[MB_RANKS_MAX][64];
    if (!session->comm || (rc = mb_session_agree(session, rc, NULL, 0, err)) != MB_OK)
        return rc;
    count = count < 64 ? count : 64;
    rc = mb_comm_gather(session->comm, values, count * sizeof *values, all);
    for (size_t i = 0; rc == MB_OK && i < count && counters[i].name; i++) {
        const char *aggregate = counters[i].aggregate ? counters[i].aggregate : "mean";
        double joined = NAN;
        int n = 0;
        for (int32_t r = 0; r < session->ranks; r++)
            joined = join(aggregate, joined, ((const double *)all)[(size_t)r * count + i], &n);
        values[i] = strcmp(aggregate, "mean") == 0 && n > 0 ? joined / n : joined;
    }
    return rc == MB_OK ? rc : mb_session_failed(session, rc, "the counters of all ranks", err);
}

int mb_place_order(const void *a, const void *b)
{
    const mb_counter_place *x = a, *y = b;
    if (x->map != y->map)
        return x->map < y->map ? -1 : 1;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    return (x->step > y->step) - (x->step < y->step);
}

/* Sorted places of all ranks: equal ones become one. Returns how many are left. */
static size_t unite(const mb_counter_map *maps, mb_counter_place *all, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        mb_counter_place *last = used ? &all[used - 1] : NULL;
        if (!last || mb_place_order(last, &all[i]) != 0) {
            all[used++] = all[i];
        } else if (maps[last->map].aggregate && strcmp(maps[last->map].aggregate, "max") == 0) {
            last->sum = fmax(last->sum, all[i].sum);
        } else {
            last->sum += all[i].sum;
            last->weight +=
                maps[last->map].aggregate && strcmp(maps[last->map].aggregate, "sum") == 0 ? 0 : all[i].weight;
        }
    }
    return used;
}

int mb_session_join_places(mb_session *session, int rc, const mb_counter_map *maps, mb_counter_place **places,
                           size_t *count, mb_error *err)
{
    size_t counts[MB_RANKS_MAX], most = 0, used = 0;
    if (!session->comm || (rc = mb_session_agree(session, rc, NULL, 0, err)) != MB_OK)
        return rc;
    rc = mb_comm_gather(session->comm, count, sizeof *count, counts);
    for (int32_t r = 0; rc == MB_OK && r < session->ranks; r++)
        most = counts[r] > most ? counts[r] : most;
    const size_t ranks = (size_t)session->ranks;
    mb_counter_place *all = calloc((ranks + 1) * (most + 1), sizeof *all), *own = all ? all + ranks * most : NULL;
    if (rc == MB_OK && !all)
        rc = mb_no_memory(err, "the counters of all ranks");
    if ((rc = mb_session_agree(session, rc, NULL, 0, err)) == MB_OK) {
        if (*count)
            memcpy(own, *places, *count * sizeof *own);
        rc = mb_comm_gather(session->comm, own, most * sizeof *own, all);
    }
    for (size_t r = 0; rc == MB_OK && r < ranks; r++) {
        memmove(all + used, all + r * most, counts[r] * sizeof *all);
        used += counts[r];
    }
    if (rc == MB_OK && used) {
        qsort(all, used, sizeof *all, mb_place_order);
        used = unite(maps, all, used);
    }
    if (rc == MB_OK) {
        free(*places);
        *places = used ? all : NULL;
        *count = used;
    }
    if (rc != MB_OK || !used)
        free(all);
    return rc;
}
