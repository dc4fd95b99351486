/*
 * step.c - one step from the host's side: upload the block, run the forward, read the best tokens back. Where the
 * backend has graphs and the method promises that its work depends on its mode alone, a forward runs eagerly the
 * first time, is captured the second time it comes up with the same (mode, phase, rows, bound of the prefix), and
 * replayed from then on. The eager run lets a backend prepare what it may not do while capturing.
 *
 * A step uploads one array (tokens, mask flags, row weights, prefix lengths) to a fixed place and downloads one
 * array (tokens, probabilities): nothing else crosses the bus.
 */
#include "model/engine/engine.h"
#include "model/engine/team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Fills the staging area from the blocks' tokens and sends it. */
static int send_input(mb_session *session, mb_forward_run *run, const int32_t *tokens, mb_error *err)
{
    mb_input input = mb_session_input(session);
    int32_t *words = session->staging, mask = session->config->mask_id, rows = run->rows;
    float *flags = (float *)(void *)words;
    int32_t centre = session->block / 2 - run->row_offset;
    if (centre < 0 || centre >= rows)
        centre = rows / 2; /* a sub-block that does not hold the block's centre: its own */
    for (int32_t b = 0; b < run->batch; b++) {
        int32_t masked = 0;
        for (int32_t r = 0; r < rows; r++) {
            int32_t token = tokens[b * session->block + run->row_offset + r];
            words[input.ids + (size_t)(b * rows + r)] = token;
            const bool open = run->open ? run->open[b * session->block + run->row_offset + r] : token == mask;
            flags[input.masked + (size_t)(b * rows + r)] = open ? 1.0f : 0.0f;
            flags[input.centre_weight + (size_t)(b * rows + r)] = r == centre ? 1.0f : 0.0f;
            masked += open;
        }
        for (int32_t r = 0; r < rows; r++)
            flags[input.masked_weight + (size_t)(b * rows + r)] =
                masked > 0 ? flags[input.masked + (size_t)(b * rows + r)] : 1.0f;
        words[input.prefix + (size_t)b] = session->prefix[b];
        if (b == 0)
            run->masked_rows = masked;
    }
    flags[input.temperature] = session->temperature;
    int rc = mb_canvas_send_window(session, run->batch, err);
    if (rc != MB_OK)
        return rc;
    rc = session->kernels->upload(session->device, session->buffer[MB_BUFFER_INPUT], words,
                                  input.words * sizeof *words);
    return rc == MB_OK ? MB_OK : mb_session_failed(session, rc, "uploading a block", err);
}

/* ---- graphs ---- */

static int32_t lane_of(const mb_session *session)
{
    return session->group ? session->number : -1;
}

static mb_captured *find_graph(const mb_session *session, mb_attender *attender, const mb_forward_run *run)
{
    for (size_t i = 0; i < attender->graph_count; i++) {
        mb_captured *g = &attender->graphs[i];
        if (g->mode == run->mode && g->phase == run->phase && g->batch == run->batch && g->rows == run->rows &&
            g->row_offset == run->row_offset && g->max_prefix == run->max_prefix &&
            g->confidence == run->confidence && g->counting == session->measure.counting &&
            g->lane == lane_of(session))
            return g;
    }
    return NULL;
}

/* Notes that a forward of this kind has come up; its graph follows the second time. */
static int note_forward(mb_attender *attender, const mb_forward_run *run, mb_error *err)
{
    if (attender->graph_count == attender->graph_capacity) {
        size_t capacity = attender->graph_capacity ? 2 * attender->graph_capacity : 16;
        mb_captured *graphs = realloc(attender->graphs, capacity * sizeof *graphs);
        if (!graphs)
            return mb_no_memory(err, "%zu graphs", capacity);
        attender->graphs = graphs;
        attender->graph_capacity = capacity;
    }
    attender->graphs[attender->graph_count++] = (mb_captured){.mode = run->mode,
                                                              .batch = run->batch,
                                                              .rows = run->rows,
                                                              .row_offset = run->row_offset,
                                                              .max_prefix = run->max_prefix,
                                                              .lane = lane_of(attender->session),
                                                              .phase = run->phase,
                                                              .confidence = run->confidence,
                                                              .counting = attender->session->measure.counting};
    return MB_OK;
}

void mb_captured_keep(mb_captured *graph, const mb_forward_run *run)
{
    graph->sparse_layers = run->sparse_layers;
    graph->layers = run->layers;
    graph->select_share = run->select_share;
    graph->local_tokens = run->local_tokens;
}

void mb_captured_tell(const mb_captured *graph, mb_forward_run *run)
{
    run->sparse_layers = graph->sparse_layers;
    run->layers = graph->layers;
    run->select_share = graph->select_share;
    run->local_tokens = graph->local_tokens;
}

void mb_captured_free(mb_session *session, mb_captured *graph)
{
    const mb_kernels *kernels = session->kernels;
    if (graph->graph)
        kernels->graph_free(session->device, graph->graph);
    for (int32_t l = 0; graph->layer && l < session->config->layers; l++)
        if (graph->layer[l])
            kernels->graph_free(session->device, graph->layer[l]);
    free(graph->layer);
    graph->graph = NULL;
    graph->layer = NULL;
}

static int capture(mb_session *session, mb_forward_run *run, mb_captured *graph, mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    mb_graph *captured = NULL;
    run->checked = false; /* a check waits for the device */
    int rc = kernels->capture_begin(session->device);
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "capturing a step", err);
    int forward = mb_forward(session, run, err);
    /* A capture is ended whatever happened inside it, or the device stays in capture mode. */
    rc = kernels->capture_end(session->device, &captured);
    if (forward != MB_OK) {
        if (rc == MB_OK)
            kernels->graph_free(session->device, captured);
        return forward;
    }
    if (rc != MB_OK)
        return mb_session_failed(session, rc, "capturing a step", err);
    mb_captured_keep(graph, run);
    graph->graph = captured;
    return MB_OK;
}

/* A forward with others is not one graph, since they change: what is an arm's own in a layer is. The first run of
 * the second time captures it (forward.c). */
static int prepare_part(mb_session *session, mb_forward_run *run, mb_captured *part, mb_error *err)
{
    run->part = part;
    if (!part)
        return MB_OK;
    run->checked = false;
    if (part->layer)
        return MB_OK;
    part->layer = calloc((size_t)session->config->layers, sizeof(mb_graph *));
    return part->layer ? MB_OK : mb_no_memory(err, "the graphs of a lane");
}

/* The graph of this forward, captured if this is its second time; NULL: it runs eagerly. */
static int prepare_graph(mb_session *session, mb_forward_run *run, mb_captured **graph, mb_error *err)
{
    /* A replay runs no hook, so nothing of a watched method could be checked, nor told from a hang. */
    bool replay =
        session->graphs && run->attender->capturable && run->shadow_count == 0 && !run->audited &&
        !run->attender->note && !run->watcher &&
        !(session->config->canvas.steps > 0 && run->phase == MB_PHASE_COMMIT); /* causal: lengths of the host */
    *graph = replay ? find_graph(session, run->attender, run) : NULL;
    if (*graph && session->group)
        return prepare_part(session, run, *graph, err);
    if (*graph && !(*graph)->graph)
        return capture(session, run, *graph, err);
    return replay && !*graph ? note_forward(run->attender, run, err) : MB_OK;
}

/* Runs the forward: the captured graph where there is one, the operations one by one otherwise. */
static int launch(mb_session *session, mb_forward_run *run, const mb_captured *graph, double *us, mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    int rc = MB_OK;
    run->replayed = graph != NULL;
    if (us && (rc = kernels->timer_mark(session->device, 0)) != MB_OK)
        return mb_session_failed(session, rc, "timer", err);
    if (graph) {
        rc = kernels->graph_launch(session->device, graph->graph);
        if (rc != MB_OK)
            return mb_session_failed(session, rc, "replaying a step", err);
        mb_captured_tell(graph, run);
    } else if ((rc = mb_forward(session, run, err)) != MB_OK) {
        return mb_session_quit(session, rc, (int64_t)run->batch * run->rows);
    }
    if (us) {
        rc = kernels->timer_mark(session->device, 1);
        if (rc == MB_OK)
            rc = kernels->timer_elapsed(session->device, 0, 1, us);
        if (rc != MB_OK)
            return mb_session_failed(session, rc, "timer", err);
    }
    return MB_OK;
}

/* Between profile_begin and profile_end. A profiler that fails is reported and costs no forward. */
static int launch_profiled(mb_session *session, mb_forward_run *run, const mb_captured *graph, bool deliver,
                           double *us, mb_error *err)
{
    const mb_kernels *kernels = session->kernels;
    mb_profile_report report = {.phase = run->phase, .step = run->step, .replayed = graph != NULL};
    mb_kernel_record *records = NULL;
    const bool watched = session->rank == 0; /* the other ranks do the same for it */
    bool open = watched && kernels->profile_begin(session->device) == MB_OK;
    if (watched && !open)
        report.error = kernels->error(session->device);
    int rc = launch(session, run, graph, us, err);
    if (open && kernels->profile_end(session->device, &records, &report.count) != MB_OK && rc == MB_OK)
        report.error = kernels->error(session->device);
    report.us = *us;
    report.records = records;
    if (rc == MB_OK && (deliver || report.error))
        session->measure.profile(session->measure.user, &report);
    free(records);
    return rc;
}

/* Kernels of a replay learn what they are for from the same forward run one by one just before. */
static int run_profiled(mb_session *session, mb_forward_run *run, const mb_captured *graph, double *us,
                        mb_error *err)
{
    int rc = launch_profiled(session, run, NULL, !graph, us, err);
    rc = mb_session_agree(session, rc, NULL, 0, err);
    return rc == MB_OK && graph ? launch_profiled(session, run, graph, true, us, err) : rc;
}

/* rc: of what comes before the forward. */
static int run_forward(mb_session *session, mb_forward_run *run, int rc, double *us, mb_error *err)
{
    const mb_measure *measure = &session->measure;
    mb_captured *graph = NULL;
    int32_t stride = measure->profile_stride > 0 ? measure->profile_stride : 1;
    double ignored = 0;
    if (session->group) { /* computed with others: nothing is timed or profiled */
        if (rc == MB_OK)
            rc = prepare_graph(session, run, &graph, err);
        return rc == MB_OK ? mb_group_forward(session, run, err) : rc;
    }
    run->audited = rc == MB_OK && mb_audit_draw(session, run);
    if (rc == MB_OK)
        rc = prepare_graph(session, run, &graph, err);
    rc = mb_session_agree(session, rc, NULL, 0, err); /* nobody goes where another one does not */
    if (rc != MB_OK)
        return rc;
    if (measure->profile && (run->phase != MB_PHASE_LATER_STEP || run->step % stride == 0))
        return run_profiled(session, run, graph, us ? us : &ignored, err);
    bool timed = us && !measure->untimed && !run->audited;
    if (us && !timed)
        *us = NAN;
    return launch(session, run, graph, timed ? us : NULL, err);
}

/* ---- the step ---- */

const char *mb_phase_name(mb_phase phase)
{
    return phase == MB_PHASE_COMMIT ? "commit" : phase == MB_PHASE_FIRST_STEP ? "first_step" : "later_step";
}

struct mode_turn {
    mb_forward_run *run;
    const mb_call *call;
};

/* The number of the captured graph that each method wants of this step. */
static int turn_mode(mb_attender *attender, mb_shadow *shadow, void *user, mb_error *err)
{
    const struct mode_turn *turn = user;
    return mb_attender_mode(attender, turn->call, shadow ? &shadow->mode : &turn->run->mode, err);
}

static int ask_modes(mb_session *session, mb_forward_run *run, mb_error *err)
{
    mb_call call;
    mb_call_view view;
    run->mode = 0;
    mb_call_make(session, run, -1, &call, &view);
    struct mode_turn turn = {run, &call};
    return mb_forward_each(run, turn_mode, &turn, err);
}

/* The answers: finite probabilities and tokens of the vocabulary. A method that made NaN fails its own cell. */
static int take_answer(const mb_session *session, const mb_forward_run *run, int32_t *ids, float *probability,
                       mb_error *err)
{
    size_t n = (size_t)run->batch * (size_t)run->rows;
    memcpy(ids, session->answer, n * sizeof *ids);
    memcpy(probability, session->answer + n, n * sizeof *probability);
    for (size_t i = 0; i < n; i++) {
        bool finite = probability[i] > 0.0f && probability[i] <= 1.001f;
        if (!finite || ids[i] < 0 || ids[i] >= session->config->vocab)
            return mb_fail(err, MB_E_SAMPLE,
                           "method %s: the logits are not finite (%s, block %d, step %d, row %zu)",
                           run->attender->method.name, mb_phase_name(run->phase), run->block, run->step, i);
    }
    return MB_OK;
}

/* rc: of the forward. All ranks of a split model take rank 0's answer: theirs may differ where two logits tie. */
static int read_answer(mb_session *session, const mb_forward_run *run, int rc, mb_error *err)
{
    size_t bytes = 2 * (size_t)run->batch * (size_t)run->rows * sizeof *session->answer;
    if (rc == MB_OK && !session->group) { /* the group has read it back for all */
        rc = session->kernels->download(session->device, session->answer, session->buffer[MB_BUFFER_BEST], bytes);
        if (rc != MB_OK)
            mb_session_failed(session, rc, "reading the best tokens", err);
    }
    return mb_session_agree(session, rc, session->answer, bytes, err);
}

int mb_step(mb_session *session, mb_forward_run *run, const int32_t *tokens, int32_t *ids, float *probability,
            double *us, mb_error *err)
{
    int32_t longest = 0;
    for (int32_t b = 0; b < run->batch; b++) {
        if (session->prefix[b] > session->capacity - session->block)
            return mb_fail(err, MB_E_SAMPLE, "the cache of %d tokens is full: %d are committed and a block has %d",
                           session->capacity, session->prefix[b], session->block);
        longest = session->prefix[b] > longest ? session->prefix[b] : longest;
    }
    run->max_prefix = mb_session_bound(session, longest);
    int rc = send_input(session, run, tokens, err);
    if (rc == MB_OK)
        rc = ask_modes(session, run, err);
    if (rc == MB_OK && run->phase != MB_PHASE_COMMIT)
        rc = mb_forward_hook(session, run, MB_HOOK_STEP_BEGIN, -1, err);
    session->kernels->range_push(session->device, mb_phase_name(run->phase));
    rc = run_forward(session, run, rc, us, err);
    session->kernels->range_pop(session->device);
    if (rc == MB_OK && run->phase != MB_PHASE_COMMIT)
        rc = mb_forward_hook(session, run, MB_HOOK_STEP_END, -1, err);
    rc = read_answer(session, run, rc, err);
    return rc == MB_OK ? take_answer(session, run, ids, probability, err) : rc;
}
