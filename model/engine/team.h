/*
 * team.h - calls that go to all ranks of a split model (team.c, ranks.c). Internal to model/.
 *
 * Each public function that works on a model, a session or an attender begins with
 *
 *     if (mb_team_leads(session->team))
 *         return mb_team_...(...);
 *
 * which runs the same function once a rank, on that rank's own model, session and attender, in its thread; the one
 * on rank 0 goes on behind that line.
 */
#ifndef MB_MODEL_TEAM_H
#define MB_MODEL_TEAM_H

#include "model/internal.h"

/* Whether a call comes from outside: from the caller, not from rank 0 while it is at work. */
bool mb_team_leads(const mb_team *team);
/* Runs job on every rank at once, rank 0 in this thread. The first failure of all, by rank. */
typedef int (*mb_team_job)(void *user, int32_t rank, mb_error *err);
int mb_team_run(mb_team *team, mb_team_job job, void *user, mb_error *err);

int32_t mb_team_ranks(const mb_team *team);
const mb_place *mb_team_place(const mb_team *team, int32_t rank);

int mb_team_model_open(mb_model **model, const mb_model_request *request, mb_type type, mb_error *err);
void mb_team_model_close(mb_model *model);
int mb_team_logits(mb_model *model, const int32_t *ids, size_t n, float **logits, mb_error *err);
int mb_team_session_open(mb_session **session, mb_model *model, const mb_session_request *request, mb_error *err);
void mb_team_session_close(mb_session *session);
int mb_team_prefill(mb_session *session, int32_t sequence, const int32_t *ids, size_t n, double *us,
                    mb_error *err);
int mb_team_fill_random(mb_session *session, int32_t tokens, uint64_t seed, mb_error *err);
int mb_team_attender_open(mb_attender **attender, mb_session *session, const mb_method *method,
                          const void *options, int32_t steps, uint64_t seed, bool *unsupported, mb_error *err);
void mb_team_attender_close(mb_attender *attender);
int mb_team_decode(mb_session *session, mb_attender *attender, const mb_decode_request *request,
                   mb_decode_result *result, mb_error *err);
int mb_team_decode_shadow(mb_session *session, mb_attender *exact, mb_attender *const *shadows,
                          size_t shadow_count, const mb_decode_request *request, mb_decode_result *result,
                          mb_recall *recalls, mb_error *err);
int mb_team_fixed_work(mb_session *session, mb_attender *attender, int32_t blocks, int32_t steps,
                       const volatile int *stop, mb_decode_result *result, mb_error *err);
/* These reach into the peers of a session, between two runs; nothing on one device. */
void mb_team_measure(mb_session *session);
void mb_team_watch(mb_attender *attender);

/* ---- what ranks tell each other; on one device they do nothing ---- */

/* data[n] of T in device memory becomes its sum over the ranks. */
int mb_session_sum(mb_session *session, void *data, int64_t n, const char *what, mb_error *err);
/* See mb_comm_agree(). Every rank calls it at the same places, whatever has happened to it. */
int mb_session_agree(mb_session *session, int rc, void *data, size_t bytes, mb_error *err);
/* A forward has failed here: the sums that it owes the other ranks (session->owed). Returns rc. */
int mb_session_quit(mb_session *session, int rc, int64_t n);
/* values[n] become their sums over the ranks, in the order of the ranks; where rc, which a rank comes with, is
 * MB_OK on all of them. */
int mb_session_add(mb_session *session, int rc, double *values, size_t n, mb_error *err);

/* values[count] of `counters` become those of the whole model: sums, maxima or, for shares and means, the mean
 * over the ranks that have a value. rc as above. */
int mb_session_join_counters(mb_session *session, int rc, const mb_counter *counters, double *values, size_t count,
                             mb_error *err);
/* The same for places in the order of mb_place_order(); means add up exactly. *places is replaced. */
int mb_session_join_places(mb_session *session, int rc, const mb_counter_map *maps, mb_counter_place **places,
                           size_t *count, mb_error *err);
int mb_place_order(const void *a, const void *b);

#endif
