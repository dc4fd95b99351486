/*
 * identity.c - what makes numbers comparable: environments, models, datasets, configurations, samplers, runs and
 * cells, each stored once.
 *
 * A row's hash covers every field that tells it apart (length and presence of each text included), so that equal
 * content gives the same row on every start, and any change a new one.
 */
#include "results/identity.h"
#include "results/store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- hashing ---- */

/* Format as in store_bind(): t text, i int64_t, j int, d double. */
static int content_hash(char hex[MB_HASH_CAP], const char *format, ...)
{
    mb_hash *hash = mb_hash_new();
    if (!hash)
        return MB_E_SYSTEM;
    va_list args;
    va_start(args, format);
    for (; *format; format++) {
        char number[64];
        const char *text = number;
        if (*format == 't')
            text = va_arg(args, const char *);
        else if (*format == 'i')
            snprintf(number, sizeof number, "%lld", (long long)va_arg(args, int64_t));
        else if (*format == 'j')
            snprintf(number, sizeof number, "%d", va_arg(args, int));
        else
            snprintf(number, sizeof number, "%.17g", va_arg(args, double));
        uint64_t length = text ? strlen(text) : UINT64_MAX; /* NULL differs from "" */
        mb_hash_add(hash, &length, sizeof length);
        if (text)
            mb_hash_add(hash, text, strlen(text));
    }
    va_end(args);
    mb_hash_end(hash, hex);
    return MB_OK;
}

static int no_hash(mb_error *err)
{
    return mb_no_memory(err, "hashing an identity");
}

/* Inserts with the bound statement, then finds the row by hash. Both statements take it as first value. */
static int insert_or_find(mb_store *store, sqlite3_stmt *insert, const char *find_sql, const char *hash,
                          int64_t *id, const char *doing, mb_error *err)
{
    bool found = false;
    int rc = store_step(store, insert, doing, err);
    if (rc != MB_OK)
        return rc;
    sqlite3_stmt *find = store_statement(store, find_sql, err);
    if (!find)
        return MB_E_SYSTEM;
    store_bind(find, "t", hash);
    rc = store_step_integer(store, find, id, &found, doing, err);
    if (rc == MB_OK && !found)
        rc = mb_fail(err, MB_E_BUG, "%s: a row just stored is not there (%s)", store->path, doing);
    return rc;
}

/* ---- environment, model, dataset, sampler ---- */

int mb_store_env(mb_store *store, const mb_env_row *row, int64_t *id, mb_error *err)
{
    static const char insert[] =
        "INSERT INTO env(hash, host, os, cpu, gpu, gpu_uuid, driver, cuda, device, git, build, detail, threads) "
        "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(hash) DO NOTHING";
    char hash[MB_HASH_CAP];
    int rc = store_writable(store, err);
    if (rc != MB_OK)
        return rc;
    if (content_hash(hash, "tttttttttttj", row->host, row->os, row->cpu, row->gpu, row->gpu_uuid, row->driver,
                     row->cuda, row->device, row->git, row->build, row->detail, row->threads) != MB_OK)
        return no_hash(err);
    sqlite3_stmt *s = store_statement(store, insert, err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ttttttttttttj", hash, row->host, row->os, row->cpu, row->gpu, row->gpu_uuid, row->driver,
               row->cuda, row->device, row->git, row->build, row->detail, row->threads);
    return insert_or_find(store, s, "SELECT id FROM env WHERE hash = ?", hash, id, "storing the environment", err);
}

int mb_store_model(mb_store *store, const mb_model_row *row, int64_t *id, mb_error *err)
{
    static const char insert[] =
        "INSERT INTO model(hash, name, family, config_hash, weights_hash, tokenizer_hash, type, layers, "
        "query_heads, kv_heads, head_dim, hidden, block, vocab, synthetic) "
        "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(hash) DO NOTHING";
    char hash[MB_HASH_CAP];
    int rc = store_writable(store, err);
    if (rc != MB_OK)
        return rc;
    if (content_hash(hash, "ttttttjjjjjjjj", row->name, row->family, row->config_hash, row->weights_hash,
                     row->tokenizer_hash, row->type, row->layers, row->query_heads, row->kv_heads, row->head_dim,
                     row->hidden, row->block, row->vocab, (int)row->synthetic) != MB_OK)
        return no_hash(err);
    sqlite3_stmt *s = store_statement(store, insert, err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "tttttttjjjjjjjj", hash, row->name, row->family, row->config_hash, row->weights_hash,
               row->tokenizer_hash, row->type, row->layers, row->query_heads, row->kv_heads, row->head_dim,
               row->hidden, row->block, row->vocab, (int)row->synthetic);
    return insert_or_find(store, s, "SELECT id FROM model WHERE hash = ?", hash, id, "storing the model", err);
}

int mb_store_dataset(mb_store *store, const mb_dataset_row *row, int64_t *id, mb_error *err)
{
    static const char insert[] =
        "INSERT INTO dataset(hash, task, benchmark, category, language, metric, file_hash, prompt_hash, "
        "options_json, max_new_tokens) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT(hash) DO NOTHING";
    char hash[MB_HASH_CAP];
    int rc = store_writable(store, err);
    if (rc != MB_OK)
        return rc;
    if (content_hash(hash, "ttttttttj", row->task, row->benchmark, row->category, row->language, row->metric,
                     row->file_hash, row->prompt_hash, row->options_json, row->max_new_tokens) != MB_OK)
        return no_hash(err);
    sqlite3_stmt *s = store_statement(store, insert, err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "tttttttttj", hash, row->task, row->benchmark, row->category, row->language, row->metric,
               row->file_hash, row->prompt_hash, row->options_json, row->max_new_tokens);
    return insert_or_find(store, s, "SELECT id FROM dataset WHERE hash = ?", hash, id, "storing the dataset", err);
}

int mb_store_sampler(mb_store *store, const mb_sampler_row *row, int64_t *id, mb_error *err)
{
    static const char insert[] = "INSERT INTO sampler(hash, schedule, steps, block, sub_block, threshold, "
                                 "dynamic, block_cache, confidence, options) "
                                 "VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT(hash) DO NOTHING";
    char hash[MB_HASH_CAP];
    int rc = store_writable(store, err);
    if (rc != MB_OK)
        return rc;
    /* Samplers of version 3 had no options, and keep their hash. */
    if (content_hash(hash, row->options ? "tjjjdjjtt" : "tjjjdjjt", row->schedule, row->steps, row->block,
                     row->sub_block, row->threshold, (int)row->dynamic, (int)row->block_cache, row->confidence,
                     row->options) != MB_OK)
        return no_hash(err);
    sqlite3_stmt *s = store_statement(store, insert, err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ttjjjdjjtt", hash, row->schedule, row->steps, row->block, row->sub_block, row->threshold,
               (int)row->dynamic, (int)row->block_cache, row->confidence, row->options);
    return insert_or_find(store, s, "SELECT id FROM sampler WHERE hash = ?", hash, id, "storing the sampler", err);
}

int mb_store_build(mb_store *store, const char *hash, const char *git, mb_error *err)
{
    int rc = store_writable(store, err);
    if (rc != MB_OK)
        return rc;
    sqlite3_stmt *s =
        store_statement(store, "INSERT INTO build(hash, git) VALUES (?,?) ON CONFLICT(hash) DO NOTHING", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "tt", hash, git);
    return insert_or_find(store, s, "SELECT id FROM build WHERE hash = ?", hash, &store->build,
                          "storing the build", err);
}

/* ---- method configuration ---- */

int mb_store_config(mb_store *store, const mb_config_row *row, int64_t *id, mb_error *err)
{
    static const char insert_method[] =
        "INSERT INTO method(hash, name, version, summary, reference, origin_hash, caps) VALUES (?,?,?,?,?,?,?) "
        "ON CONFLICT(hash) DO UPDATE SET summary = excluded.summary, reference = excluded.reference";
    static const char insert[] = "INSERT INTO config(hash, method_id, label, k, options_json) VALUES (?,?,?,?,?) "
                                 "ON CONFLICT(hash) DO UPDATE SET label = excluded.label";
    char hash[MB_HASH_CAP];
    int64_t method = 0;
    int rc = store_writable(store, err);
    if (rc != MB_OK)
        return rc;
    /* Summary, reference and label are words about the method: they may be reworded without a new identity. */
    if (content_hash(hash, "ttti", row->method, row->version, row->origin_hash, (int64_t)row->caps) != MB_OK)
        return no_hash(err);
    sqlite3_stmt *s = store_statement(store, insert_method, err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "tttttti", hash, row->method, row->version, row->summary, row->reference, row->origin_hash,
               (int64_t)row->caps);
    rc =
        insert_or_find(store, s, "SELECT id FROM method WHERE hash = ?", hash, &method, "storing the method", err);
    if (rc != MB_OK)
        return rc;
    char method_hash[MB_HASH_CAP];
    memcpy(method_hash, hash, sizeof hash);
    if (content_hash(hash, "tit", method_hash, row->k, row->options_json) != MB_OK)
        return no_hash(err);
    s = store_statement(store, insert, err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "titkt", hash, method, row->label ? row->label : row->method, row->k, row->options_json);
    return insert_or_find(store, s, "SELECT id FROM config WHERE hash = ?", hash, id, "storing the configuration",
                          err);
}

/* ---- runs ---- */

/* A label nobody has: "quick", then "quick#2", ... */
static int run_label(mb_store *store, const char *name, char **label, mb_error *err)
{
    for (int number = 1;; number++) {
        int64_t id = 0;
        bool found = false;
        *label = number == 1 ? mb_string_copy(name) : mb_string_format("%s#%d", name, number);
        if (!*label)
            return mb_no_memory(err, "naming the run");
        sqlite3_stmt *s = store_statement(store, "SELECT id FROM run WHERE label = ?", err);
        if (!s)
            return MB_E_SYSTEM;
        store_bind(s, "t", *label);
        int rc = store_step_integer(store, s, &id, &found, "naming the run", err);
        if (rc != MB_OK || !found)
            return rc;
        free(*label);
        *label = NULL;
    }
}

/* The run of this hash goes on: *found and its id. A run that is new is inserted under a label of its own. */
static int continue_or_insert(mb_store *store, const mb_run_row *row, const char *hash, int64_t *run_id,
                              mb_error *err)
{
    char *label = NULL;
    bool found = false;
    sqlite3_stmt *s = store_statement(
        store, "UPDATE run SET state = 'running', config_json = ?2 WHERE hash = ?1 RETURNING id", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "tt", hash, row->config_json);
    int rc = store_step_integer(store, s, run_id, &found, "continuing the run", err);
    if (rc != MB_OK || found)
        return rc;
    if ((rc = run_label(store, row->name, &label, err)) != MB_OK)
        return rc;
    s = store_statement(store,
                        "INSERT INTO run(hash, label, name, config_json, seed, state) "
                        "VALUES (?,?,?,?,?,'running') RETURNING id",
                        err);
    if (s) {
        store_bind(s, "tttti", hash, label, row->name, row->config_json, (int64_t)row->seed);
        rc = store_step_integer(store, s, run_id, &found, "storing the run", err);
    }
    free(label);
    return s ? rc : MB_E_SYSTEM;
}

/* A session of the run begins; one that still says "running" was killed, because we hold the only lock. */
static int begin_session(mb_store *store, const mb_run_row *row, int64_t run_id, mb_error *err)
{
    sqlite3_stmt *s =
        store_statement(store, "UPDATE session SET state = 'killed' WHERE run_id = ? AND state = 'running'", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run_id);
    int rc = store_step(store, s, "storing the run", err);
    if (rc != MB_OK)
        return rc;
    s = store_statement(store,
                        "INSERT INTO session(run_id, env_id, command, state, started_at, shard, shard_first, "
                        "shard_last) VALUES (?,?,?,'running',strftime('%Y-%m-%dT%H:%M:%fZ','now'),?,?,?)",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    const mb_shard *shard = &row->shard;
    bool part = shard->last > 0;
    store_bind(s, "iitkkk", run_id, row->env, row->command, part ? (int64_t)shard->number : (int64_t)-1,
               part ? (int64_t)shard->first : (int64_t)-1, part ? (int64_t)shard->last : (int64_t)-1);
    return store_step(store, s, "storing the run", err);
}

int mb_store_run(mb_store *store, const mb_run_row *row, int64_t *run_id, mb_error *err)
{
    char hash[MB_HASH_CAP];
    if (content_hash(hash, "ti", row->identity, (int64_t)row->seed) != MB_OK)
        return no_hash(err);
    int rc = store_begin(store, err);
    if (rc != MB_OK)
        return rc;
    rc = continue_or_insert(store, row, hash, run_id, err);
    if (rc == MB_OK)
        rc = begin_session(store, row, *run_id, err);
    return store_end(store, rc, err);
}

int mb_store_run_end(mb_store *store, int64_t run_id, const char *state, double seconds, int64_t peak_bytes,
                     mb_error *err)
{
    int rc = store_begin(store, err);
    if (rc != MB_OK)
        return rc;
    sqlite3_stmt *s = store_statement(
        store,
        "UPDATE session SET state = ?2, ended_at = strftime('%Y-%m-%dT%H:%M:%SZ','now'), wall_us = ?3, "
        "peak_bytes = ?4 WHERE id = (SELECT max(id) FROM session WHERE run_id = ?1)",
        err);
    if (s) {
        store_bind(s, "itdi", run_id, state, seconds * 1e6, peak_bytes);
        rc = store_step(store, s, "ending the run", err);
    } else {
        rc = MB_E_SYSTEM;
    }
    if (rc == MB_OK) {
        s = store_statement(store, "UPDATE run SET state = ?2 WHERE id = ?1", err);
        if (s) {
            store_bind(s, "it", run_id, state);
            rc = store_step(store, s, "ending the run", err);
        } else {
            rc = MB_E_SYSTEM;
        }
    }
    return store_end(store, rc, err);
}

/* ---- cells ---- */

int mb_store_cell(mb_store *store, const mb_cell_key *key, int64_t *cell_id, mb_error *err)
{
    bool found = false;
    int64_t dataset = key->dataset > 0 ? key->dataset : -1;
    int rc = store_writable(store, err);
    if (rc != MB_OK)
        return rc;
    sqlite3_stmt *s = store_statement(
        store,
        "INSERT INTO cell(run_id, model_id, dataset_id, config_id, sampler_id, pass, build_id, session_id) "
        "VALUES (?1,?2,?3,?4,?5,?6,?7,(SELECT max(id) FROM session WHERE run_id = ?1)) ON CONFLICT(run_id, "
        "model_id, "
        "coalesce(dataset_id, 0), config_id, sampler_id, pass, coalesce(build_id, 0)) "
        "DO UPDATE SET session_id = excluded.session_id",
        err);
    if (!s)
        return MB_E_SYSTEM;
    int64_t build = store->build ? store->build : -1;
    store_bind(s, "iikiitk", key->run, key->model, dataset, key->config, key->sampler, key->pass, build);
    rc = store_step(store, s, "storing a cell", err);
    if (rc != MB_OK)
        return rc;
    s = store_statement(
        store,
        "SELECT id FROM cell WHERE run_id = ?1 AND model_id = ?2 AND coalesce(dataset_id, 0) = coalesce(?3, 0) "
        "AND config_id = ?4 AND sampler_id = ?5 AND pass = ?6 AND build_id IS ?7",
        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "iikiitk", key->run, key->model, dataset, key->config, key->sampler, key->pass, build);
    rc = store_step_integer(store, s, cell_id, &found, "storing a cell", err);
    if (rc == MB_OK && !found)
        rc = mb_fail(err, MB_E_BUG, "%s: a cell just stored is not there", store->path);
    return rc;
}

int mb_store_cell_state(mb_store *store, int64_t cell, const char *state, const char *reason, mb_error *err)
{
    int rc = store_writable(store, err);
    if (rc != MB_OK)
        return rc;
    sqlite3_stmt *s = store_statement(store, "UPDATE cell SET state = ?2, reason = ?3 WHERE id = ?1", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "itt", cell, state, reason);
    return store_step(store, s, "storing a cell's state", err);
}

int mb_store_has_sample(mb_store *store, int64_t cell, const char *sample_key)
{
    mb_error err = {0};
    int64_t one = 0;
    bool found = false;
    sqlite3_stmt *s = store_statement(
        store,
        "SELECT 1 FROM cell c JOIN item i ON coalesce(i.dataset_id, 0) = coalesce(c.dataset_id, 0) AND i.key = ?2 "
        "JOIN sample x ON x.cell_id = c.id AND x.item_id = i.id WHERE c.id = ?1 AND x.status <> 'failed'",
        &err);
    if (!s)
        return 0;
    store_bind(s, "it", cell, sample_key);
    return store_step_integer(store, s, &one, &found, "looking for a sample", &err) == MB_OK && found;
}

int mb_store_cell_has(mb_store *store, const mb_cell_key *key, const char *sample_key)
{
    mb_error err = {0};
    int64_t cell = 0, build = store->build ? store->build : -1;
    bool found = false;
    sqlite3_stmt *s = store_statement(
        store,
        "SELECT id FROM cell WHERE run_id = ?1 AND model_id = ?2 AND coalesce(dataset_id, 0) = coalesce(?3, 0) "
        "AND config_id = ?4 AND sampler_id = ?5 AND pass = ?6 AND build_id IS ?7",
        &err);
    if (!s)
        return 0;
    store_bind(s, "iikiitk", key->run, key->model, key->dataset > 0 ? key->dataset : -1, key->config, key->sampler,
               key->pass, build);
    return store_step_integer(store, s, &cell, &found, "looking for a cell", &err) == MB_OK && found &&
           mb_store_has_sample(store, cell, sample_key);
}

int64_t mb_store_session_samples(mb_store *store, int64_t run)
{
    int64_t count = 0;
    bool found = false;
    sqlite3_stmt *s = store_statement(
        store, "SELECT count(*) FROM sample WHERE session_id = (SELECT max(id) FROM session WHERE run_id = ?)",
        NULL);
    if (!s)
        return 0;
    store_bind(s, "i", run);
    return store_step_integer(store, s, &count, &found, "counting samples", NULL) == MB_OK ? count : 0;
}

int64_t mb_store_cell_samples(mb_store *store, int64_t cell)
{
    mb_error err = {0};
    int64_t count = 0;
    bool found = false;
    sqlite3_stmt *s =
        store_statement(store, "SELECT count(*) FROM sample WHERE cell_id = ? AND status <> 'failed'", &err);
    if (!s)
        return 0;
    store_bind(s, "i", cell);
    return store_step_integer(store, s, &count, &found, "counting samples", &err) == MB_OK ? count : 0;
}

/* ---- finding ---- */

int store_find_run(mb_store *store, const char *name, int64_t *id, char **label, mb_error *err)
{
    bool newest = !name || !*name;
    sqlite3_stmt *s = newest
                          ? store_statement(store,
                                            "SELECT r.id, r.label FROM run r JOIN session x ON x.run_id = r.id "
                                            "ORDER BY x.id DESC LIMIT 1",
                                            err)
                          : store_statement(store,
                                            "SELECT id, label FROM run WHERE label = ?1 OR CAST(id AS TEXT) = ?1 "
                                            "ORDER BY label = ?1 DESC LIMIT 1",
                                            err);
    if (!s)
        return MB_E_SYSTEM;
    if (!newest)
        store_bind(s, "t", name);
    int code = sqlite3_step(s), rc = MB_OK;
    if (code == SQLITE_ROW) {
        *id = sqlite3_column_int64(s, 0);
        if (label && !(*label = mb_string_copy((const char *)sqlite3_column_text(s, 1))))
            rc = mb_no_memory(err, "the name of a run");
    } else if (code != SQLITE_DONE) {
        rc = store_error(store, code, "looking for a run", err);
    } else if (newest) {
        rc = mb_fail(err, MB_E_INPUT, "%s: no run is stored in it", store->path);
    } else {
        rc = mb_fail(err, MB_E_INPUT, "%s: has no run \"%s\": SELECT run FROM v_runs names them", store->path,
                     name);
    }
    sqlite3_reset(s);
    return rc;
}
