/*
 * gates.c - sanity checks of a run, computed from the views before anything is shown. A failed gate does not stop
 * a report: it is printed on it in red and stamped on every figure.
 */
#include "results/store.h"

#include <string.h>

#define RECALL_SLACK 1e-3 /* summation order and ties; a defect is larger */
#define SIGNIFICANT 0.01

typedef struct verdict {
    const char *name, *value;
    mb_text detail;
} verdict;

static int verdict_store(mb_store *store, int64_t run, verdict *v, int rc, mb_error *err)
{
    if (rc == MB_OK && v->detail.failed)
        rc = mb_no_memory(err, "the gates of the run");
    if (rc == MB_OK)
        rc = mb_store_gate(store, run, v->name, v->value, v->detail.data ? v->detail.data : "", err);
    mb_text_free(&v->detail);
    return rc;
}

static int query_end(mb_store *store, sqlite3_stmt *s, int code, mb_error *err)
{
    int rc = code == SQLITE_DONE ? MB_OK : store_error(store, code, "computing the gates", err);
    sqlite3_reset(s);
    return rc;
}

static const char *column_text(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    return text ? text : "";
}

/* Where a budget holds the whole context, a method must decode what the reference decodes; not one that hands on
 * states of earlier queries (MB_CAP_REUSE, 16), which no budget makes exact. */
static int gate_full_budget(mb_store *store, int64_t run, mb_error *err)
{
    verdict v = {.name = "full budget equals the reference", .value = "skip"};
    sqlite3_stmt *s = store_statement(
        store,
        "SELECT config, count(*), sum(difference <> 0 OR NOT same_prediction OR NOT same_length) FROM "
        "v_paired_item "
        "WHERE run_id = ? AND is_lossless = 0 AND k >= tokens AND NOT EXISTS (SELECT 1 FROM config f JOIN method "
        "m "
        "ON m.id = f.method_id WHERE f.id = v_paired_item.config_id AND m.caps & 16) "
        "GROUP BY config_id ORDER BY config_id",
        err);
    int64_t items = 0, different = 0;
    int code;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t n = sqlite3_column_int64(s, 1), bad = sqlite3_column_int64(s, 2);
        items += n;
        different += bad;
        if (bad)
            mb_text_printf(&v.detail, "%s%s: %lld of %lld answers differ", v.detail.length ? "; " : "",
                           column_text(s, 0), (long long)bad, (long long)n);
    }
    if (items == 0)
        mb_text_puts(&v.detail, "no configuration's budget holds a whole context");
    else if (different == 0)
        mb_text_printf(&v.detail, "%lld answers with k >= context are the same", (long long)items);
    v.value = items == 0 ? "skip" : different ? "fail" : "pass";
    return verdict_store(store, run, &v, query_end(store, s, code, err), err);
}

/* No selection can hold more attention mass than the exact top k of the same size. */
static int gate_oracle(mb_store *store, int64_t run, mb_error *err)
{
    verdict v = {.name = "oracle bounds the recall", .value = "skip"};
    sqlite3_stmt *s = store_statement(
        store,
        "SELECT c.config, c.task, c.mass_recall, max(o.mass_recall) FROM v_recall_config c JOIN v_recall_config o "
        "ON o.is_oracle = 1 AND o.run_id = c.run_id AND o.model_id = c.model_id AND o.dataset_id = c.dataset_id "
        "AND o.sampler_id = c.sampler_id AND o.pass = c.pass AND o.k = c.k "
        "WHERE c.run_id = ? AND c.is_oracle = 0 AND c.pass = 'recall' GROUP BY c.config_id, c.model_id, "
        "c.dataset_id, c.sampler_id ORDER BY c.config_id, c.dataset_id",
        err);
    int64_t compared = 0, above = 0;
    int code;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        compared++;
        if (sqlite3_column_double(s, 2) <= sqlite3_column_double(s, 3) + RECALL_SLACK)
            continue;
        if (++above <= 4)
            mb_text_printf(&v.detail, "%s%s on %s: %.4f above %.4f", v.detail.length ? "; " : "",
                           column_text(s, 0), column_text(s, 1), sqlite3_column_double(s, 2),
                           sqlite3_column_double(s, 3));
    }
    if (above > 4)
        mb_text_printf(&v.detail, "; and %lld more", (long long)above - 4);
    if (compared == 0)
        mb_text_puts(&v.detail, "no recall of an oracle at the same budget");
    else if (above == 0)
        mb_text_printf(&v.detail, "mass recall of %lld pairs", (long long)compared);
    v.value = compared == 0 ? "skip" : above ? "fail" : "pass";
    return verdict_store(store, run, &v, query_end(store, s, code, err), err);
}

/* Sparse above exact is the sign of a broken reference. The sign test's p is multiplied by the number of
 * configurations tested (Bonferroni), so that many arms do not make a false alarm likely. */
static int gate_not_above(mb_store *store, int64_t run, mb_error *err)
{
    verdict v = {.name = "no sparse arm above the reference", .value = "skip"};
    sqlite3_stmt *s = store_statement(
        store,
        "SELECT config, sampler, sum(wins), sum(losses), count(*) OVER () FROM v_paired WHERE run_id = ? AND "
        "is_lossless = 0 GROUP BY model_id, config_id, sampler_id ORDER BY config_id",
        err);
    int64_t arms = 0, above = 0;
    double smallest = 1;
    int code;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t wins = sqlite3_column_int64(s, 2), losses = sqlite3_column_int64(s, 3);
        double p = sign_test(wins, losses) * sqlite3_column_double(s, 4);
        p = p > 1 ? 1 : p;
        arms++;
        smallest = p < smallest ? p : smallest;
        if (p < SIGNIFICANT) {
            above++;
            mb_text_printf(&v.detail, "%s%s (%s): %lld wins, %lld losses, p = %.2g", v.detail.length ? "; " : "",
                           column_text(s, 0), column_text(s, 1), (long long)wins, (long long)losses, p);
        }
    }
    if (arms == 0)
        mb_text_puts(&v.detail, "no pairs of a sparse arm and the reference");
    else if (above == 0)
        mb_text_printf(&v.detail, "sign test on %lld arms, smallest corrected p = %.2g", (long long)arms,
                       smallest);
    v.value = arms == 0 ? "skip" : above ? "fail" : "pass";
    return verdict_store(store, run, &v, query_end(store, s, code, err), err);
}

/* Whoever runs both modes stores this gate; here only its absence is said. */
static int gate_graph(mb_store *store, int64_t run, mb_error *err)
{
    verdict v = {.name = "graph and eager agree", .value = "skip"};
    int64_t one = 0;
    bool found = false;
    sqlite3_stmt *s = store_statement(store,
                                      "SELECT 1 FROM gate WHERE run_id = ?1 AND name = ?2 AND "
                                      "verdict <> 'skip'",
                                      err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "it", run, v.name);
    int rc = store_step_integer(store, s, &one, &found, "computing the gates", err);
    if (rc != MB_OK || found)
        return rc;
    mb_text_puts(&v.detail, "outputs were not compared in both modes");
    return verdict_store(store, run, &v, MB_OK, err);
}

int mb_gates_run(mb_store *store, int64_t run, mb_error *err)
{
    int rc = store_freeze(store, run, err); /* what the gates write is in no frozen view */
    if (rc == MB_OK)
        rc = gate_full_budget(store, run, err);
    if (rc == MB_OK)
        rc = gate_oracle(store, run, err);
    if (rc == MB_OK)
        rc = gate_not_above(store, run, err);
    if (rc == MB_OK)
        rc = gate_graph(store, run, err);
    return store_thaw(store, rc, err);
}
