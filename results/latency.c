/*
 * latency.c - measured times, memory, breakdowns; and what a run says about itself: gates and events.
 *
 * A measurement belongs to the start of the program that made it. Measuring again adds rows, it replaces none of
 * an earlier start.
 */
#include "results/store.h"

#include <math.h>
#include <string.h>

static bool same_case(const mb_latency_row *a, const mb_latency_row *b)
{
    return a->context == b->context && a->batch == b->batch && a->steps == b->steps && a->graph == b->graph &&
           strcmp(a->phase, b->phase) == 0;
}

/* The start that measures: the newest session of the cell's run. */
static int find_session(mb_store *store, int64_t cell, int64_t *session, mb_error *err)
{
    bool found = false;
    sqlite3_stmt *s = store_statement(
        store, "SELECT max(x.id) FROM session x JOIN cell c ON c.run_id = x.run_id WHERE c.id = ?", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", cell);
    int rc = store_step_integer(store, s, session, &found, "looking for the session", err);
    return rc == MB_OK && !found
               ? mb_fail(err, MB_E_BUG, "%s: cell %lld has no session", store->path, (long long)cell)
               : rc;
}

/* One raw sample; i counts the rows of its case before it. The first of a case clears what this session had. */
static int store_time(mb_store *store, int64_t cell, int64_t session, const mb_latency_row *row, int64_t i,
                      mb_error *err)
{
    sqlite3_stmt *s;
    if (i == 0) {
        s = store_statement(
            store,
            "DELETE FROM latency WHERE cell_id = ? AND session_id = ? AND context = ? AND batch = ? AND steps = ? "
            "AND graph = ? AND phase = ?",
            err);
        if (!s)
            return MB_E_SYSTEM;
        store_bind(s, "iijjjjt", cell, session, row->context, row->batch, row->steps, (int)row->graph, row->phase);
        int rc = store_step(store, s, "storing times", err);
        if (rc != MB_OK)
            return rc;
    }
    s = store_statement(store,
                        "INSERT INTO latency(cell_id, session_id, context, batch, steps, graph, phase, i, "
                        "time_us, kept, sm_mhz, throttle, "
                        "temperature, power, other_processes, timer) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "iijjjjtidjkkddkt", cell, session, row->context, row->batch, row->steps, (int)row->graph,
               row->phase, i, row->us, (int)row->kept, row->sm_mhz > 0 ? (int64_t)row->sm_mhz : (int64_t)-1,
               row->throttle, row->temperature, row->power, (int64_t)row->other_processes, row->timer);
    return store_step(store, s, "storing times", err);
}

int mb_store_latency(mb_store *store, int64_t cell, const mb_latency_row *rows, size_t count, mb_error *err)
{
    enum { CASES = 64 };
    /* Where each case's first row stands and how many were seen; a call holds few cases (phases x modes). */
    struct {
        size_t first;
        int64_t seen;
    } cases[CASES];
    size_t case_count = 0;
    int64_t session = 0;
    int rc = store_begin(store, err);
    if (rc != MB_OK)
        return rc;
    rc = find_session(store, cell, &session, err);
    for (size_t n = 0; rc == MB_OK && n < count; n++) {
        size_t c = 0;
        while (c < case_count && !same_case(&rows[cases[c].first], &rows[n]))
            c++;
        if (c == CASES) {
            rc = mb_fail(err, MB_E_BUG, "%s: more than %d cases in one measurement", store->path, CASES);
            break;
        }
        if (c == case_count) {
            cases[case_count].first = n;
            cases[case_count++].seen = 0;
        }
        rc = store_time(store, cell, session, &rows[n], cases[c].seen++, err);
    }
    return store_end(store, rc, err);
}

int mb_store_memory(mb_store *store, int64_t cell, const mb_memory_row *row, mb_error *err)
{
    int64_t session = 0;
    int rc = store_writable(store, err);
    if (rc == MB_OK)
        rc = find_session(store, cell, &session, err);
    if (rc != MB_OK)
        return rc;
    sqlite3_stmt *s = store_statement(
        store,
        "INSERT OR REPLACE INTO memory(cell_id, session_id, context, batch, weights_bytes, kv_bytes, index_bytes, "
        "scratch_bytes, peak_bytes) VALUES (?,?,?,?,?,?,?,?,?)",
        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "iijjiiiii", cell, session, row->context, row->batch, row->weights, row->kv, row->index,
               row->scratch, row->peak);
    return store_step(store, s, "storing memory", err);
}

int mb_store_breakdown(mb_store *store, int64_t cell, const mb_breakdown_row *rows, size_t count, mb_error *err)
{
    int64_t session = 0;
    int rc = store_begin(store, err);
    if (rc != MB_OK)
        return rc;
    rc = find_session(store, cell, &session, err);
    /* Two loops: the parts of a step may have other names than last time, so all old ones go first. */
    for (size_t n = 0; rc == MB_OK && n < count; n++) {
        sqlite3_stmt *s =
            store_statement(store,
                            "DELETE FROM breakdown WHERE cell_id = ? AND session_id = ? AND context = ? AND "
                            "batch = ? AND step_kind = ?",
                            err);
        if (!s) {
            rc = MB_E_SYSTEM;
            break;
        }
        store_bind(s, "iijjt", cell, session, rows[n].context, rows[n].batch, rows[n].step_kind);
        rc = store_step(store, s, "storing a breakdown", err);
    }
    for (size_t n = 0; rc == MB_OK && n < count; n++) {
        sqlite3_stmt *s = store_statement(
            store,
            "INSERT INTO breakdown(cell_id, session_id, context, batch, step_kind, part, i, time_us, "
            "kernels) "
            "VALUES (?,?,?,?,?,?,?,?,?)",
            err);
        if (!s) {
            rc = MB_E_SYSTEM;
            break;
        }
        store_bind(s, "iijjttidj", cell, session, rows[n].context, rows[n].batch, rows[n].step_kind, rows[n].part,
                   (int64_t)n, rows[n].us, rows[n].kernels);
        rc = store_step(store, s, "storing a breakdown", err);
    }
    return store_end(store, rc, err);
}

int mb_store_has_latency(mb_store *store, int64_t cell, int64_t reference, const mb_latency_row *which)
{
    int64_t one = 0;
    bool found = false;
    sqlite3_stmt *s =
        store_statement(store,
                        "WITH here AS (SELECT e.* FROM session x JOIN env e ON e.id = x.env_id "
                        "ORDER BY x.id DESC LIMIT 1), "
                        "there AS (SELECT l.cell_id, l.session_id FROM latency l "
                        "JOIN session x ON x.id = l.session_id JOIN env e ON e.id = x.env_id, here h "
                        "WHERE l.cell_id IN (?1, ?2) AND l.phase = ?3 AND l.context = "
                        "?4 AND l.batch = ?5 AND l.steps = ?6 AND l.kept = 1 AND e.threads = h.threads "
                        "AND e.cpu IS h.cpu AND e.gpu IS h.gpu AND e.device IS h.device) "
                        "SELECT 1 FROM cell c WHERE c.id = ?1 AND (EXISTS (SELECT 1 FROM there "
                        "WHERE cell_id = ?1) OR (EXISTS (SELECT "
                        "1 FROM there WHERE cell_id = ?2) AND (c.state = 'skipped' OR EXISTS "
                        "(SELECT 1 FROM latency l WHERE l.cell_id "
                        "= ?1 AND l.session_id IN (SELECT session_id FROM there)))))",
                        NULL);
    if (!s)
        return 0;
    store_bind(s, "iitjjj", cell, reference, which->phase, which->context, which->batch, which->steps);
    return store_step_integer(store, s, &one, &found, "looking for a measurement", NULL) == MB_OK && found;
}

int mb_store_has_breakdown(mb_store *store, int64_t cell, int32_t context, int32_t batch)
{
    int64_t one = 0;
    bool found = false;
    sqlite3_stmt *s = store_statement(
        store, "SELECT 1 FROM breakdown WHERE cell_id = ? AND context = ? AND batch = ? LIMIT 1", NULL);
    if (!s)
        return 0;
    store_bind(s, "ijj", cell, context, batch);
    return store_step_integer(store, s, &one, &found, "looking for a profile", NULL) == MB_OK && found;
}

int mb_store_gate(mb_store *store, int64_t run, const char *name, const char *verdict, const char *detail,
                  mb_error *err)
{
    int rc = store_writable(store, err);
    if (rc != MB_OK)
        return rc;
    sqlite3_stmt *s =
        store_statement(store, "INSERT OR REPLACE INTO gate(run_id, name, verdict, detail) VALUES (?,?,?,?)", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ittt", run, name, verdict, detail);
    return store_step(store, s, "storing a gate", err);
}

bool mb_store_gate_failed(mb_store *store, int64_t run, const char *name)
{
    int64_t one = 0;
    bool found = false;
    sqlite3_stmt *s = store_statement(
        store, "SELECT 1 FROM gate WHERE run_id = ? AND name = ? AND verdict = 'fail' LIMIT 1", NULL);
    if (!s)
        return false;
    store_bind(s, "it", run, name);
    return store_step_integer(store, s, &one, &found, "looking for a gate", NULL) == MB_OK && found;
}

int mb_store_event(mb_store *store, int64_t run, const char *level, const char *text, mb_error *err)
{
    int rc = store_writable(store, err);
    if (rc != MB_OK)
        return rc;
    sqlite3_stmt *s = store_statement(store,
                                      "INSERT INTO event(run_id, session_id, stored_at, level, text) "
                                      "VALUES (?1, (SELECT max(id) FROM session WHERE run_id = ?1), "
                                      "strftime('%Y-%m-%dT%H:%M:%SZ','now'), ?2, ?3)",
                                      err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "itt", run, level, text);
    return store_step(store, s, "storing an event", err);
}
