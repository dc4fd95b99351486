/*
 * test_truth.c - no number that misleads: one meaning of work, rows of other code retire, speed is paired with its
 * own sampler, measured times stay, equal outcomes have equal verdicts, tasks nobody can do are in no mean. Each
 * case fails where the store shows what it must not.
 */
#include "tests/results/small_store.h"

#include "results/comparison.h"
#include "results/store.h"

static void open_small(small_store *s, const char *name)
{
    small_path(s, name);
    small_open(s, 7);
}

static void end_small(small_store *s)
{
    small_close(s);
    unlink(s->path);
}

/* A further start of the same run, as the program makes one. */
static void start_again(small_store *s)
{
    mb_run_row run = {"small", "{\"tasks\": [\"qa\"], \"limit\": 4}", "{}", "cmd", 7, s->env, {0}};
    OK(mb_store_run(s->store, &run, &s->run, &s->err));
}

static int64_t config_of(small_store *s, const char *method, uint64_t caps, int64_t k, const char *code)
{
    char label[64];
    int64_t id = 0;
    if (k >= 0)
        snprintf(label, sizeof label, "%s k=%lld", method, (long long)k);
    else
        snprintf(label, sizeof label, "%s", method);
    mb_config_row row = {method, "1", "words", "paper", code, "{}", caps, k, label};
    OK(mb_store_config(s->store, &row, &id, &s->err));
    return id;
}

/* 0.25 to attend and 0.125 to choose are 0.375 everywhere. */
static void work_is_all_of_it(void **state)
{
    small_store s = {0};
    (void)state;
    open_small(&s, "work");
    int64_t exact = small_cell(&s, small_config(&s, "exact", 8, -1), "quality");
    int64_t sparse = small_cell(&s, small_config(&s, "sparse", 0, 64), "quality");
    small_sample(&s, exact, "a", 1);
    small_sample(&s, sparse, "a", 1);
    static const char *const queries[] = {
        "SELECT DISTINCT work, work_attend, work_select FROM v_samples",
        "SELECT DISTINCT work, work_attend, work_select FROM v_accuracy",
        "SELECT DISTINCT work, work_attend, work_select FROM v_pareto",
    };
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++)
        assert_string_equal(small_query(s.store, queries[i]), "0.375,0.25,0.125\n");
    assert_string_equal(small_query(s.store, "SELECT DISTINCT work FROM v_work"), "0.375\n");
    mb_text out = {0};
    OK(mb_report(s.store, NULL, &(mb_report_options){MB_TABLE_JSONL, 0, true, NULL}, &out, &s.err));
    assert_non_null(strstr(out.data, "\"work\": 0.375, \"work_select\": 0.125"));
    mb_text_free(&out);
    end_small(&s);
}

/* Two tasks with one and three samples: the mean is over tasks, in the view of means as in the curves and the
 * report. */
static void one_rule_of_averaging(void **state)
{
    small_store s = {0};
    comparison *list = NULL;
    size_t count = 0;
    (void)state;
    open_small(&s, "mean");
    int64_t config = small_config(&s, "exact", 8, -1), first = s.data;
    mb_dataset_row other = {"needles", "niah", "retrieval", "en", "contains", "f", "p", NULL, 32};
    small_sample(&s, small_cell(&s, config, "quality"), "a", 1);
    OK(mb_store_dataset(s.store, &other, &s.data, &s.err));
    for (int i = 0; i < 3; i++) {
        char key[8];
        snprintf(key, sizeof key, "n%d", i);
        mb_sample_row row = small_row(small_cell(&s, config, "quality"), key, 0.5);
        row.work_attend = 0.75;
        OK(mb_store_sample(s.store, &row, &s.err));
    }
    s.data = first;
    /* (0.375 + 0.875) / 2, not (0.375 + 3 * 0.875) / 4 */
    assert_string_equal(small_query(s.store, "SELECT work FROM v_work WHERE task = '*'"), "0.625\n");
    assert_string_equal(small_query(s.store, "SELECT work FROM v_pareto"), "0.625\n");
    OK(comparison_load(s.store, s.run, &list, &count, &s.err));
    assert_float_equal(list[0].arms[0].all.work, 0.625, 1e-12);
    comparison_free(list, count);
    end_small(&s);
}

/* Another build, another plug-in or changed data behind one label: the views show the newest, the rest is there.
 */
static void superseded_rows_retire(void **state)
{
    small_store s = {0};
    (void)state;
    open_small(&s, "retire");
    OK(mb_store_build(s.store, "build one", "g1", &s.err));
    int64_t old = small_cell(&s, config_of(&s, "sparse", 0, 64, "code 1"), "quality");
    small_sample(&s, old, "a", 0);
    small_sample(&s, old, "b", 0);
    assert_true(mb_store_has_sample(s.store, old, "a"));

    start_again(&s); /* the method's code changed: nothing of it is found, nothing old is shown */
    int64_t edited = small_cell(&s, config_of(&s, "sparse", 0, 64, "code 2"), "quality");
    assert_int_not_equal(edited, old);
    assert_false(mb_store_has_sample(s.store, edited, "a"));
    small_sample(&s, edited, "a", 1);
    assert_string_equal(small_query(s.store, "SELECT score, n FROM v_accuracy"), "1,1\n");
    assert_string_equal(small_query(s.store, "SELECT count(*), sum(is_current) FROM v_samples_all"), "3,1\n");

    start_again(&s); /* the program's code changed */
    OK(mb_store_build(s.store, "build two", "g2", &s.err));
    int64_t rebuilt = small_cell(&s, config_of(&s, "sparse", 0, 64, "code 2"), "quality");
    assert_int_not_equal(rebuilt, edited);
    small_sample(&s, rebuilt, "a", 0.5);
    assert_string_equal(small_query(s.store, "SELECT score, n FROM v_accuracy"), "0.5,1\n");

    start_again(&s); /* back to the code of before: its rows are found again and shown */
    OK(mb_store_build(s.store, "build one", "g1", &s.err));
    assert_int_equal(small_cell(&s, config_of(&s, "sparse", 0, 64, "code 2"), "quality"), edited);
    assert_string_equal(small_query(s.store, "SELECT score, n FROM v_accuracy"), "1,1\n");

    start_again(&s); /* the data file changed */
    mb_dataset_row data = {"qa", "longbench", "single-doc QA", "en", "qa_f1", "another file", "p", NULL, 32};
    OK(mb_store_dataset(s.store, &data, &s.data, &s.err));
    small_sample(&s, small_cell(&s, config_of(&s, "sparse", 0, 64, "code 2"), "quality"), "a", 0.25);
    assert_string_equal(small_query(s.store, "SELECT score, n FROM v_accuracy"), "0.25,1\n");
    end_small(&s);
}

static void put_time(small_store *s, int64_t cell, const char *phase, int32_t steps, double us)
{
    mb_latency_row rows[2];
    for (int i = 0; i < 2; i++)
        rows[i] = (mb_latency_row){.phase = phase,
                                   .context = 4096,
                                   .batch = 1,
                                   .steps = steps,
                                   .us = us,
                                   .kept = true,
                                   .throttle = -1,
                                   .temperature = NAN,
                                   .power = NAN,
                                   .other_processes = -1};
    OK(mb_store_latency(s->store, cell, rows, 2, &s->err));
}

/* Scores of the adaptive sampler stand beside timed requests, those of T steps beside blocks of T steps. */
static void speed_has_the_samplers_own(void **state)
{
    small_store s = {0};
    (void)state;
    open_small(&s, "sampler");
    int64_t fixed = s.sampler, adaptive;
    mb_sampler_row rule = {"threshold", 0, 16, 16, 0.9, false, false, "f32", NULL};
    OK(mb_store_sampler(s.store, &rule, &adaptive, &s.err));
    int64_t exact = small_config(&s, "exact", 8, -1), sparse = small_config(&s, "sparse", 0, 64);
    for (int i = 0; i < 2; i++) {
        s.sampler = i ? adaptive : fixed;
        small_sample(&s, small_cell(&s, exact, "quality"), "a", 1);
        small_sample(&s, small_cell(&s, sparse, "quality"), "a", 1);
    }
    s.sampler = adaptive; /* of the run's first sampler, as the latency pass stores it */
    int64_t times[2] = {small_cell(&s, exact, "latency"), small_cell(&s, sparse, "latency")};
    put_time(&s, times[0], "block", 8, 800);
    put_time(&s, times[1], "block", 8, 200);
    put_time(&s, times[0], "block", 16, 1600);
    put_time(&s, times[1], "block", 16, 320);
    put_time(&s, times[0], "request", 0, 900);
    put_time(&s, times[1], "request", 0, 600);
    assert_string_equal(
        small_query(s.store,
                    "SELECT sampler, phase, speedup FROM v_pareto WHERE is_reference = 0 ORDER BY sampler"),
        "T=8/16,block,4\nthreshold 0.9,request,1.5\n");
    assert_string_equal(small_query(s.store, "SELECT DISTINCT sampler FROM v_speedup ORDER BY 1"),
                        "T=16/16\nT=8/16\nthreshold 0.9\n");
    end_small(&s);
}

/* The sparse method needs 12 forwards where exact needs 8, and a forward costs half: 2 / 1.5 = 1.333. */
static void forwards_are_a_factor(void **state)
{
    small_store s = {0};
    comparison *list = NULL;
    size_t count = 0;
    (void)state;
    open_small(&s, "forwards");
    int64_t exact = small_config(&s, "exact", 8, -1), sparse = small_config(&s, "sparse", 0, 64);
    for (int i = 0; i < 4; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        small_sample(&s, small_cell(&s, exact, "quality"), key, 1);
        mb_sample_row row = small_row(small_cell(&s, sparse, "quality"), key, 1);
        row.denoise_forwards = 12;
        OK(mb_store_sample(s.store, &row, &s.err));
    }
    put_time(&s, small_cell(&s, exact, "latency"), "later_step", 8, 100);
    put_time(&s, small_cell(&s, sparse, "latency"), "later_step", 8, 50);
    assert_string_equal(small_query(s.store, "SELECT task, ratio, request_ratio, n FROM v_forwards_ratio WHERE "
                                             "is_reference = 0 ORDER BY task"),
                        "*,1.5,1.5,4\nqa,1.5,1.5,4\n");
    assert_string_equal(small_query(s.store,
                                    "SELECT round(forwards_factor, 6), cost_factor, round(speedup, 6) FROM "
                                    "v_end_to_end WHERE is_reference = 0"),
                        "0.666667,2,1.333333\n");
    OK(comparison_load(s.store, s.run, &list, &count, &s.err));
    interval ratio = list[0].arms[1].all.forwards_ratio;
    assert_float_equal(ratio.mean, 1.5, 1e-12);
    assert_float_equal(ratio.low, 1.5, 1e-12);
    assert_float_equal(ratio.high, 1.5, 1e-12);
    comparison_free(list, count);
    end_small(&s);
}

/* Two arms with the same outcomes under other names have the same interval and the same verdict. */
static void same_data_same_verdict(void **state)
{
    small_store s = {0};
    comparison *list = NULL;
    size_t count = 0;
    (void)state;
    open_small(&s, "verdict");
    int64_t configs[] = {small_config(&s, "exact", 8, -1), small_config(&s, "first", 0, 64),
                         small_config(&s, "second", 0, 64)};
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 40; i++) {
            char key[8];
            snprintf(key, sizeof key, "k%02d", i);
            small_sample(&s, small_cell(&s, configs[c], "quality"), key, c ? (i % 3) / 2.0 : 0.5);
        }
    OK(comparison_load(s.store, s.run, &list, &count, &s.err));
    const arm_score *a = &list[0].arms[1].all, *b = &list[0].arms[2].all;
    assert_true(a->delta.low < a->delta.high);
    assert_true(a->delta.low == b->delta.low && a->delta.high == b->delta.high && a->p == b->p);
    comparison_free(list, count);
    end_small(&s);
}

/* Measuring again adds rows; a later start finds what is stored; a method is compared within its own session. */
static void measured_times_stay(void **state)
{
    small_store s = {0};
    (void)state;
    open_small(&s, "again");
    int64_t exact = small_config(&s, "exact", 8, -1), sparse = small_config(&s, "sparse", 0, 64);
    int64_t a = small_cell(&s, exact, "latency"), b = small_cell(&s, sparse, "latency");
    put_time(&s, a, "block", 8, 100);
    put_time(&s, b, "block", 8, 50);
    mb_latency_row eight = {.phase = "block", .context = 4096, .batch = 1, .steps = 8}, sixteen = eight;
    sixteen.steps = 16;
    assert_true(mb_store_has_latency(s.store, b, a, &eight));
    assert_false(mb_store_has_latency(s.store, b, a, &sixteen));
    put_time(&s, a, "block", 16, 200); /* the sparse one was there and could not: it is not waited for again */
    assert_true(mb_store_has_latency(s.store, b, a, &sixteen));
    int64_t later =
        small_cell(&s, small_config(&s, "later", 0, 64), "latency"); /* a method that came afterwards */
    assert_false(mb_store_has_latency(s.store, later, a, &eight));
    start_again(&s); /* exact alone is measured anew, on a slower day */
    put_time(&s, small_cell(&s, exact, "latency"), "block", 8, 200);
    assert_string_equal(small_query(s.store, "SELECT count(*), count(DISTINCT session_id) FROM latency"), "8,2\n");
    assert_string_equal(
        small_query(s.store, "SELECT config, median_us FROM v_latency WHERE steps = 8 ORDER BY config_id"),
        "exact,200\nsparse k=64,50\n");
    assert_string_equal(small_query(s.store, "SELECT speedup FROM v_speedup WHERE is_reference = 0"), "2\n");
    assert_string_equal(small_query(s.store, "SELECT median_us, is_newest FROM v_latency_all WHERE is_reference "
                                             "AND steps = 8 ORDER BY session_id"),
                        "100,0\n200,1\n");
    assert_true(mb_store_has_latency(s.store, a, a, &eight));
    mb_env_row fewer = {.host = "h", .cpu = "c", .device = "cpu", .git = "g", .threads = 1};
    mb_run_row run = {"small", "{\"tasks\": [\"qa\"], \"limit\": 4}", "{}", "cmd", 1, 0, {0}};
    int64_t same_run = 0;
    OK(mb_store_env(s.store, &fewer, &run.env, &s.err)); /* the times of two threads are not those of one */
    run.seed = (uint64_t)atoi(small_query(s.store, "SELECT seed FROM run"));
    OK(mb_store_run(s.store, &run, &same_run, &s.err));
    assert_int_equal(same_run, s.run);
    assert_false(mb_store_has_latency(s.store, a, a, &eight));
    end_small(&s);
}

/* A task on which nobody scores is named and in no mean. */
static void tasks_nobody_can_do(void **state)
{
    small_store s = {0};
    mb_text out = {0};
    (void)state;
    open_small(&s, "zero");
    int64_t exact = small_config(&s, "exact", 8, -1), sparse = small_config(&s, "sparse", 0, 64), first = s.data;
    small_sample(&s, small_cell(&s, exact, "quality"), "a", 1);
    small_sample(&s, small_cell(&s, sparse, "quality"), "a", 0.5);
    mb_dataset_row other = {"impossible", "longbench", "few-shot", "en", "rouge", "f", "p", NULL, 32};
    OK(mb_store_dataset(s.store, &other, &s.data, &s.err));
    small_sample(&s, small_cell(&s, exact, "quality"), "b", 0);
    small_sample(&s, small_cell(&s, sparse, "quality"), "b", 0);
    s.data = first;
    assert_string_equal(small_query(s.store, "SELECT task, used FROM v_task_used ORDER BY dataset_id"),
                        "qa,1\nimpossible,0\n");
    assert_string_equal(small_query(s.store, "SELECT score FROM v_work WHERE task = '*' ORDER BY config_id"),
                        "1\n0.5\n");
    OK(mb_report(s.store, NULL, &(mb_report_options){MB_TABLE_MARKDOWN, 0, true, NULL}, &out, &s.err));
    assert_non_null(strstr(out.data, "in no mean, because no method scores above 0: impossible\n"));
    assert_non_null(strstr(out.data, "100.0"));
    mb_text_free(&out);
    end_small(&s);
}

/* A store of version 2, made of this version's tables taken back: every row is there after it was opened. */
static void version_2_keeps_every_row(void **state)
{
    static const char back[] =
        "DROP INDEX cell_key; ALTER TABLE cell DROP COLUMN build_id; ALTER TABLE cell DROP COLUMN session_id;"
        "CREATE UNIQUE INDEX cell_key ON cell(run_id, model_id, coalesce(dataset_id, 0), config_id, sampler_id, "
        "pass);"
        "ALTER TABLE sample RENAME COLUMN work_attend TO work; DROP TABLE build;"
        "ALTER TABLE latency RENAME TO l3; ALTER TABLE memory RENAME TO m3; ALTER TABLE breakdown RENAME TO b3;"
        "CREATE TABLE latency (cell_id INTEGER NOT NULL REFERENCES cell(id), context INTEGER NOT NULL, batch "
        "INTEGER "
        "NOT NULL, steps INTEGER NOT NULL, graph INTEGER NOT NULL, phase TEXT NOT NULL, i INTEGER NOT NULL, "
        "time_us "
        "REAL NOT NULL, kept INTEGER NOT NULL, sm_mhz INTEGER, throttle INTEGER, temperature REAL, power REAL, "
        "other_processes INTEGER, timer TEXT, PRIMARY KEY (cell_id, context, batch, steps, graph, phase, i)) "
        "STRICT, "
        "WITHOUT ROWID;"
        "INSERT INTO latency SELECT cell_id, context, batch, steps, graph, phase, i, time_us, kept, sm_mhz, "
        "throttle, "
        "temperature, power, other_processes, timer FROM l3;"
        "CREATE TABLE memory (cell_id INTEGER NOT NULL, context INTEGER NOT NULL, batch INTEGER NOT NULL, "
        "weights_bytes INTEGER NOT NULL, kv_bytes INTEGER NOT NULL, index_bytes INTEGER NOT NULL, scratch_bytes "
        "INTEGER NOT NULL, peak_bytes INTEGER NOT NULL, PRIMARY KEY (cell_id, context, batch)) STRICT, WITHOUT "
        "ROWID;"
        "INSERT INTO memory SELECT cell_id, context, batch, weights_bytes, kv_bytes, index_bytes, scratch_bytes, "
        "peak_bytes FROM m3;"
        "CREATE TABLE breakdown (cell_id INTEGER NOT NULL, context INTEGER NOT NULL, batch INTEGER NOT NULL, "
        "step_kind "
        "TEXT NOT NULL, part TEXT NOT NULL, i INTEGER NOT NULL, time_us REAL NOT NULL, kernels INTEGER NOT NULL, "
        "PRIMARY KEY (cell_id, context, batch, step_kind, part)) STRICT, WITHOUT ROWID;"
        "INSERT INTO breakdown SELECT cell_id, context, batch, step_kind, part, i, time_us, kernels FROM b3;"
        "DROP TABLE l3; DROP TABLE m3; DROP TABLE b3; DROP TABLE prompt_text; DROP TABLE trace; DROP TABLE "
        "selection; ALTER TABLE sampler DROP COLUMN options; "
        "DROP INDEX event_session; ALTER TABLE session DROP COLUMN shard; ALTER TABLE session DROP COLUMN "
        "shard_first; ALTER TABLE session DROP COLUMN shard_last; PRAGMA user_version = 2;";
    static const char shown[] = "SELECT config, score, work FROM v_samples ORDER BY 1";
    static const char times[] = "SELECT config, phase, median_us, n FROM v_latency ORDER BY 1";
    small_store s = {0};
    sqlite3 *db = NULL;
    char samples[70000], latencies[70000];
    (void)state;
    open_small(&s, "migrate");
    int64_t exact = small_config(&s, "exact", 8, -1), sparse = small_config(&s, "sparse", 0, 64);
    small_sample(&s, small_cell(&s, exact, "quality"), "a", 1);
    small_sample(&s, small_cell(&s, sparse, "quality"), "a", 0.5);
    int64_t cell = small_cell(&s, exact, "latency");
    put_time(&s, cell, "block", 8, 100);
    mb_memory_row memory = {4096, 1, 1, 2, 3, 4, 10};
    OK(mb_store_memory(s.store, cell, &memory, &s.err));
    mb_breakdown_row part = {4096, 1, "later", "gemm", 5, 1};
    OK(mb_store_breakdown(s.store, cell, &part, 1, &s.err));
    snprintf(samples, sizeof samples, "%s", small_query(s.store, shown));
    snprintf(latencies, sizeof latencies, "%s", small_query(s.store, times));
    small_close(&s);

    assert_int_equal(sqlite3_open(s.path, &db), SQLITE_OK);
    mb_text drops = {0};
    sqlite3_stmt *views = NULL;
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT name FROM sqlite_master WHERE type = 'view'", -1, &views, NULL), SQLITE_OK);
    while (sqlite3_step(views) == SQLITE_ROW)
        mb_text_printf(&drops, "DROP VIEW %s;", (const char *)sqlite3_column_text(views, 0));
    sqlite3_finalize(views);
    char *wrong = NULL;
    sqlite3_exec(db, drops.data, NULL, NULL, NULL);
    mb_text_free(&drops);
    if (sqlite3_exec(db, back, NULL, NULL, &wrong) != SQLITE_OK)
        fail_msg("%s", wrong);
    sqlite3_close(db);

    char *merged = mb_string_format("%s.merged", s.path); /* an older file is merged as what it becomes */
    mb_text notes = {0};
    OK(mb_store_merge(merged, (const char *const[]){s.path}, 1, NULL, &notes, &s.err));
    mb_text_free(&notes);
    OK(mb_store_open(&s.store, merged, MB_STORE_READ, &s.err));
    assert_string_equal(small_query(s.store, shown), samples);
    assert_string_equal(small_query(s.store, times), latencies);
    OK(mb_store_close(s.store, &s.err));
    unlink(merged);
    free(merged);

    OK(mb_store_open(&s.store, s.path, MB_STORE_READ, &s.err)); /* a reader leaves the file as it is */
    assert_string_equal(small_query(s.store, shown), samples);
    OK(mb_store_close(s.store, &s.err));
    assert_int_equal(sqlite3_open(s.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "SELECT work FROM sample", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);

    OK(mb_store_open(&s.store, s.path, MB_STORE_WRITE, &s.err));
    assert_string_equal(small_query(s.store, shown), samples);
    assert_string_equal(small_query(s.store, times), latencies);
    assert_string_equal(small_query(s.store, "SELECT peak_bytes FROM v_memory"), "10\n");
    assert_string_equal(small_query(s.store, "SELECT part, us FROM v_breakdown"), "gemm,5\n");
    OK(mb_store_close(s.store, &s.err));
    unlink(s.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_all_of_it),         cmocka_unit_test(one_rule_of_averaging),
        cmocka_unit_test(superseded_rows_retire),    cmocka_unit_test(speed_has_the_samplers_own),
        cmocka_unit_test(forwards_are_a_factor),     cmocka_unit_test(same_data_same_verdict),
        cmocka_unit_test(measured_times_stay),       cmocka_unit_test(tasks_nobody_can_do),
        cmocka_unit_test(version_2_keeps_every_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
