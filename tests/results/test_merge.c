/*
 * test_merge.c - databases become one: nothing lost, nothing doubled, nothing pooled, and a value that two files
 * disagree about is an error that changes nothing.
 */
#include "tests/results/small_store.h"

#include "results/merge.h"

#define PARTS 4

typedef struct fixture {
    small_store part[PARTS], out;
    mb_text notes;
    mb_error err;
} fixture;

static void fixture_open(fixture *f)
{
    memset(f, 0, sizeof *f);
    for (int i = 0; i < PARTS; i++) {
        char name[32];
        snprintf(name, sizeof name, "part%d", i);
        small_path(&f->part[i], name);
    }
    small_path(&f->out, "merged");
}

static void fixture_close(fixture *f)
{
    for (int i = 0; i < PARTS; i++)
        unlink(f->part[i].path);
    unlink(f->out.path);
    mb_text_free(&f->notes);
}

/* A shard of the run with this seed begins. */
static void shard_open(small_store *s, uint64_t seed, int32_t number, int32_t last)
{
    small_open(s, seed);
    OK(mb_store_run_end(s->store, s->run, "done", 1, 1, &s->err));
    mb_run_row run = {.name = "small",
                      .config_json = "{}",
                      .identity = "{}",
                      .command = "cmd",
                      .seed = seed,
                      .env = s->env,
                      .shard = {number, 1, last}};
    if (last == 0)
        return;
    OK(mb_store_run(s->store, &run, &s->run, &s->err));
    char *why = NULL; /* the session of small_open() is no part of the story */
    assert_int_equal(sqlite3_exec(((struct mb_store *)s->store)->db,
                                  "DELETE FROM session WHERE shard IS NULL; UPDATE session SET id = id - 1", NULL,
                                  NULL, &why),
                     SQLITE_OK);
}

static void shard_close(small_store *s, const char *state)
{
    OK(mb_store_run_end(s->store, s->run, state, 1, 1, &s->err));
    small_close(s);
}

/* The same shard is started once more and ends. */
static void start_again(small_store *s, int32_t number, int32_t last)
{
    mb_run_row run = {.name = "small",
                      .config_json = "{}",
                      .identity = "{}",
                      .command = "cmd",
                      .seed = 7,
                      .env = s->env,
                      .shard = {number, 1, last}};
    OK(mb_store_open(&s->store, s->path, MB_STORE_WRITE, &s->err));
    OK(mb_store_run(s->store, &run, &s->run, &s->err));
    shard_close(s, "done");
}

static void change(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    char *why = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s: %s", sql, why);
    sqlite3_close(db);
}

static int merge(fixture *f, const int *parts, size_t count)
{
    const char *paths[PARTS];
    for (size_t i = 0; i < count; i++)
        paths[i] = f->part[parts[i]].path;
    mb_text_clear(&f->notes);
    return mb_store_merge(f->out.path, paths, count, NULL, &f->notes, &f->err);
}
#define MERGED(f, ...)                                                                                            \
    if (MERGE(f, __VA_ARGS__) != MB_OK)                                                                           \
    fail_msg("%s", (f)->err.text)
#define MERGE(f, ...) merge(f, (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

static const char *ask(const char *path, const char *sql)
{
    mb_store *store = NULL;
    mb_error err = {0};
    if (mb_store_open(&store, path, MB_STORE_READ, &err) != MB_OK)
        fail_msg("%s", err.text);
    const char *text = small_query(store, sql);
    OK(mb_store_close(store, &err));
    return text;
}

/* Whoever adds a table must say how it is merged. */
static void declares_every_table(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    small_open(&f.part[0], 1);
    mb_text tables = {0};
    for (const merge_declaration *d = merge_declarations; d->name; d++)
        mb_text_printf(&tables, "%s'%s'", tables.length ? "," : "", d->name);
    char *sql =
        mb_string_format("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%%' "
                         "AND name NOT IN (%s)",
                         tables.data);
    assert_string_equal(small_query(f.part[0].store, sql), "");
    free(sql);
    mb_text_free(&tables);
    /* Every word of a declaration is a column, and what a table points to stands in front of it. */
    merge_tables all;
    OK(merge_tables_open(&all, f.part[0].store, &f.err));
    for (size_t t = 0; t < all.count; t++) {
        const merge_declaration *d = all.all[t].declared;
        const char *const lists[] = {d->key, d->loose, d->fill, d->words, d->owner};
        for (size_t l = 0; l < sizeof lists / sizeof *lists; l++)
            for (const char *p = lists[l]; p && *p; p += strcspn(p, " "), p += *p == ' ') {
                char name[64];
                snprintf(name, sizeof name, "%.*s", (int)strcspn(p, " ?"), p);
                if (merge_find_column(&all.all[t], name) < 0)
                    fail_msg("table %s has no column %s", d->name, name);
            }
        for (size_t c = 0; c < all.all[t].column_count; c++)
            assert_true(all.all[t].columns[c].references < (int)t);
    }
    merge_tables_close(&all);
    small_close(&f.part[0]);
    change(f.part[0].path, "CREATE TABLE extra (x INTEGER)");
    assert_int_equal(MERGE(&f, 0), MB_E_INPUT);
    assert_non_null(strstr(f.err.text, "its table extra is unknown"));
    assert_false(mb_file_exists(f.out.path));
    fixture_close(&f);
}

static void sample_with_rows(small_store *s, int64_t cell, const char *key, double score)
{
    const float head[2] = {0.5f, 0.25f};
    const mb_recall_row recall = {1, 1, 2, 2, 0.375, 0.5, 0.3, head, head};
    const mb_counter_row counter = {"hits", "blocks", "higher", "sum", 5.5};
    const mb_grid_row grid = {"rate", "", "higher", "mean", 0, 1, 3, 4};
    const int32_t histogram[3] = {0, 0, 2};
    mb_sample_row row = small_row(cell, key, score);
    row.recalls = &recall;
    row.recall_count = 1;
    row.counters = &counter;
    row.counter_count = 1;
    row.grids = &grid;
    row.grid_count = 1;
    row.forwards_histogram = histogram;
    row.histogram_size = 3;
    OK(mb_store_sample(s->store, &row, &s->err));
}

static void shards_become_their_run(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    for (int i = 0; i < 3; i++) {
        shard_open(&f.part[i], 7, i + 1, 3);
        int64_t cell = small_cell(&f.part[i], small_config(&f.part[i], "exact", 8, -1), "quality");
        sample_with_rows(&f.part[i], cell, (const char *const[]){"a", "b", "c"}[i], i / 2.0);
        shard_close(&f.part[i], i == 1 ? "interrupted" : "done");
    }
    MERGED(&f, 2, 0);
    assert_string_equal(f.notes.data, "run small: 1 of its 3 shards are missing: 2 (not there) of 3\n");
    assert_string_equal(ask(f.out.path, "SELECT state FROM v_runs"), "interrupted\n");
    MERGED(&f, 1);
    assert_string_equal(f.notes.data, "run small: 1 of its 3 shards are missing: 2 (interrupted) of 3\n");
    change(f.part[1].path, "UPDATE session SET state = 'done'");
    change(f.out.path,
           "UPDATE session SET ended_at = NULL WHERE shard = 2"); /* it was running when it was merged */
    MERGED(&f, 1);
    assert_string_equal(f.notes.data, "run small: all 3 shards\n");
    assert_string_equal(ask(f.out.path, "SELECT state, samples, sessions FROM v_runs"), "done,3,3\n");
    /* The unsharded run gives the same rows. */
    shard_open(&f.part[3], 7, 0, 0);
    int64_t cell = small_cell(&f.part[3], small_config(&f.part[3], "exact", 8, -1), "quality");
    for (int i = 0; i < 3; i++)
        sample_with_rows(&f.part[3], cell, (const char *const[]){"a", "b", "c"}[i], i / 2.0);
    OK(mb_gates_run(f.part[3].store, f.part[3].run, &f.err));
    shard_close(&f.part[3], "done");
    static const char content[] = "SELECT * FROM v_content ORDER BY relation, key, value";
    char *whole = mb_string_copy(ask(f.part[3].path, content));
    assert_true(strlen(whole) > 1000);
    assert_string_equal(ask(f.out.path, content), whole);
    /* Again, in another order, with the whole run: nothing changes. */
    char *before =
        mb_string_copy(ask(f.out.path, "SELECT count(*), sum(s.id), (SELECT count(*) FROM recall), (SELECT "
                                       "count(*) FROM grid_value), (SELECT count(*) FROM forwards) FROM "
                                       "sample s"));
    MERGED(&f, 3, 1, 0, 2);
    assert_string_equal(f.notes.data, "run small: not split\n"); /* one session did it all */
    assert_string_equal(ask(f.out.path,
                            "SELECT count(*), sum(s.id), (SELECT count(*) FROM recall), (SELECT count(*) "
                            "FROM grid_value), (SELECT count(*) FROM forwards) FROM sample s"),
                        before);
    assert_string_equal(ask(f.out.path, content), whole);
    free(before);
    free(whole);
    fixture_close(&f);
}

static void says_both_values(void **state)
{
    (void)state;
    static const struct {
        const char *change, *says;
    } cases[] = {
        {"UPDATE sample SET score = 0.25", "score is 0.25 in "},
        {"UPDATE sample SET prediction = 'other'", "prediction is \"other\" in "},
        {"UPDATE recall SET mass_recall = 0.75", "mass_recall is 0.75 in "},
        {"DELETE FROM grid_value", "it has 0 rows of grid_value in "},
        {"UPDATE grid_value SET layer = 4", "missing in "},
        {"UPDATE item SET answers_json = '[]'", "answers_json is \"[]\" in "},
        {"UPDATE counter SET unit = 'x'", "unit is \"x\" in "},
        {"UPDATE model SET layers = 5", "layers is 5 in "},
    };
    fixture f;
    fixture_open(&f);
    shard_open(&f.part[0], 7, 0, 0);
    sample_with_rows(&f.part[0], small_cell(&f.part[0], small_config(&f.part[0], "exact", 8, -1), "recall"), "a",
                     1);
    shard_close(&f.part[0], "done");
    MERGED(&f, 0);
    size_t size = 0, after = 0;
    char *bytes = NULL, *changed = NULL, *merged = NULL;
    OK(mb_file_read(f.part[0].path, 1 << 26, &bytes, &size, &f.err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OK(mb_file_write(f.part[1].path, bytes, size, &f.err));
        change(f.part[1].path, cases[i].change);
        merged = mb_string_copy(ask(f.out.path, "SELECT * FROM v_content"));
        assert_int_equal(MERGE(&f, 1), MB_E_INPUT);
        if (!strstr(f.err.text, cases[i].says) || !strstr(f.err.text, "nothing was merged"))
            fail_msg("%s gave: %s", cases[i].change, f.err.text);
        assert_string_equal(ask(f.out.path, "SELECT * FROM v_content"), merged);
        free(merged);
    }
    (void)after;
    free(bytes);
    free(changed);
    fixture_close(&f);
}

/* A failed row is no value: it gives way, from either side. */
static void failures_give_way(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    for (int i = 0; i < 2; i++) {
        shard_open(&f.part[i], 7, 0, 0);
        int64_t cell = small_cell(&f.part[i], small_config(&f.part[i], "exact", 8, -1), "quality");
        mb_sample_row row = small_row(cell, i ? "b" : "a", 0);
        row.status = "failed";
        row.error = "the lights went out";
        OK(mb_store_sample(f.part[i].store, &row, &f.err));
        sample_with_rows(&f.part[i], cell, i ? "a" : "b", 1);
        shard_close(&f.part[i], "done");
    }
    MERGED(&f, 0, 1);
    assert_string_equal(ask(f.out.path, "SELECT item, status, score FROM v_samples ORDER BY item"),
                        "a,ok,1\nb,ok,1\n");
    assert_string_equal(ask(f.out.path, "SELECT count(*) FROM recall"), "2\n");
    MERGED(&f, 1, 0);
    assert_string_equal(ask(f.out.path, "SELECT count(*), (SELECT count(*) FROM recall) FROM sample"), "2,2\n");
    fixture_close(&f);
}

/* Two machines time the same case: both measurements stay, and the newest start is told by the clock. */
static void pools_no_times(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    for (int i = 0; i < 2; i++) {
        shard_open(&f.part[i], 7, 0, 0);
        mb_env_row env = {.host = i ? "two" : "one", .cpu = "c", .device = "cpu", .git = "g", .threads = 2};
        OK(mb_store_env(f.part[i].store, &env, &f.part[i].env, &f.err));
        mb_run_row run = {.name = "small",
                          .config_json = "{}",
                          .identity = "{}",
                          .command = "cmd",
                          .seed = 7,
                          .env = f.part[i].env};
        OK(mb_store_run(f.part[i].store, &run, &f.part[i].run, &f.err));
        int64_t cell = small_cell(&f.part[i], small_config(&f.part[i], "exact", 8, -1), "latency");
        mb_latency_row times[3];
        for (int n = 0; n < 3; n++)
            times[n] = (mb_latency_row){
                .phase = "block", .context = 1024, .batch = 1, .steps = 8, .us = 100 * (i + 1), .kept = true};
        OK(mb_store_latency(f.part[i].store, cell, times, 3, &f.err));
        OK(mb_store_event(f.part[i].store, f.part[i].run, "note", "timed", &f.err));
        shard_close(&f.part[i], "done");
        change(f.part[i].path, i ? "UPDATE session SET started_at = '2020-01-01T00:00:00Z'"
                                 : "UPDATE session SET started_at = '2021-01-01T00:00:00Z'");
    }
    for (int turn = 0; turn < 2; turn++) {
        MERGED(&f, turn ? 1 : 0, turn ? 0 : 1); /* the older one comes last, and then once more */
        assert_string_equal(ask(f.out.path, "SELECT count(*), count(DISTINCT session_id) FROM latency"), "6,2\n");
        assert_string_equal(ask(f.out.path, "SELECT median_us, n FROM v_latency"), "100,3\n");
        assert_string_equal(ask(f.out.path, "SELECT median_us FROM v_latency_all ORDER BY 1"), "100\n200\n");
        assert_string_equal(ask(f.out.path, "SELECT host FROM v_runs"), "one\n");
        assert_string_equal(ask(f.out.path, "SELECT count(*) FROM event"), "2\n");
        assert_string_equal(ask(f.out.path, "SELECT count(*) FROM env"), "3\n");
    }
    fixture_close(&f);
}

/* Two starts of a shard within a second are two sessions, also in a result that knew the first. */
static void starts_follow_quickly(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    for (int i = 0; i < 2; i++) {
        shard_open(&f.part[i], 7, i + 1, 2);
        small_sample(&f.part[i], small_cell(&f.part[i], small_config(&f.part[i], "exact", 8, -1), "quality"),
                     i ? "b" : "a", 1);
        shard_close(&f.part[i], i == 1 ? "interrupted" : "done");
    }
    MERGED(&f, 0, 1);
    assert_string_equal(f.notes.data, "run small: 1 of its 2 shards are missing: 2 (interrupted) of 2\n");
    start_again(&f.part[1], 2, 2);
    MERGED(&f, 1);
    assert_string_equal(f.notes.data, "run small: all 2 shards\n");
    assert_string_equal(ask(f.out.path, "SELECT state, sessions FROM v_runs"), "done,3\n");
    fixture_close(&f);
}

/* A file as its program leaves it when it is killed in its first transaction: pages are written, and a journal
 * that takes them back. */
static void leave_half_written(const char *path)
{
    char other[512], from[600], to[600];
    sqlite3 *db = NULL;
    snprintf(other, sizeof other, "%s.other", path);
    assert_int_equal(sqlite3_open(other, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db,
                     "PRAGMA cache_size = 1; BEGIN; CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
                     "SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT randomblob(900) FROM n",
                     NULL, NULL, NULL),
        SQLITE_OK);
    for (int i = 0; i < 2; i++) {
        char *bytes = NULL;
        size_t size = 0;
        mb_error err = {0};
        snprintf(from, sizeof from, "%s%s", other, i ? "-journal" : "");
        snprintf(to, sizeof to, "%s%s", path, i ? "-journal" : "");
        OK(mb_file_read(from, 1 << 24, &bytes, &size, &err));
        assert_true(size > 512);
        OK(mb_file_write(to, bytes, size, &err));
        free(bytes);
    }
    sqlite3_close(db);
    unlink(other);
}

static void runs_stand_side_by_side(void **state)
{
    (void)state;
    fixture f;
    fixture_open(&f);
    for (int i = 0; i < 2; i++) {
        shard_open(&f.part[i], 7 + (uint64_t)i, 0, 0);
        small_sample(&f.part[i], small_cell(&f.part[i], small_config(&f.part[i], "exact", 8, -1), "quality"), "a",
                     i);
        shard_close(&f.part[i], "done");
    }
    MERGED(&f, 0, 1);
    assert_string_equal(ask(f.out.path, "SELECT run, seed FROM v_runs ORDER BY run"), "small,7\nsmall#2,8\n");
    /* A file whose program was killed before its first row is no error, and no run. */
    OK(mb_file_write(f.part[2].path, "", 0, &f.err));
    change(f.part[3].path, "PRAGMA journal_mode = WAL; CREATE TABLE t(x); DROP TABLE t");
    MERGED(&f, 2, 3);
    assert_non_null(strstr(f.notes.data, "nothing was stored in it yet"));
    leave_half_written(f.part[2].path);
    MERGED(&f, 2, 3);
    assert_true(mb_store_is_blank(f.part[2].path));
    assert_string_equal(ask(f.out.path, "SELECT run, score FROM v_samples ORDER BY run"), "small,0\nsmall#2,1\n");
    assert_string_equal(ask(f.out.path, "SELECT count(DISTINCT run) FROM v_gates"), "2\n");
    fixture_close(&f);
}

/* What points nowhere, breaks a rule or is no table is said with the file's name. */
static void refuses_damaged_files(void **state)
{
    (void)state;
    static const struct {
        const char *change, *says;
    } cases[] = {
        {"DELETE FROM cell", "points to row"},
        {"DELETE FROM model", "points to row"},
        {"ALTER TABLE sample ADD COLUMN extra TEXT", "other columns"},
        {"ALTER TABLE forwards RENAME TO f; CREATE VIEW forwards AS SELECT * FROM f", "unknown"},
        {"DROP TABLE gate", "other columns"},
    };
    fixture f;
    fixture_open(&f);
    shard_open(&f.part[0], 7, 0, 0);
    sample_with_rows(&f.part[0], small_cell(&f.part[0], small_config(&f.part[0], "exact", 8, -1), "recall"), "a",
                     1);
    shard_close(&f.part[0], "done");
    size_t size = 0;
    char *bytes = NULL;
    OK(mb_file_read(f.part[0].path, 1 << 26, &bytes, &size, &f.err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OK(mb_file_write(f.part[1].path, bytes, size, &f.err));
        change(f.part[1].path, cases[i].change);
        assert_int_equal(MERGE(&f, 1), MB_E_INPUT);
        if (!strstr(f.err.text, cases[i].says) || !strstr(f.err.text, "part1"))
            fail_msg("%s gave: %s", cases[i].change, f.err.text);
        assert_false(mb_file_exists(f.out.path));
    }
    free(bytes);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(declares_every_table),    cmocka_unit_test(shards_become_their_run),
        cmocka_unit_test(says_both_values),        cmocka_unit_test(failures_give_way),
        cmocka_unit_test(pools_no_times),          cmocka_unit_test(starts_follow_quickly),
        cmocka_unit_test(runs_stand_side_by_side), cmocka_unit_test(refuses_damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
