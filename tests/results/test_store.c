/*
 * test_store.c - the store keeps what it was given, finds it again, and says in one sentence why it cannot.
 */
#include "tests/results/small_store.h"

#include "results/store.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void keeps_a_sample(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "keep");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "m", 0, 64), "recall");
    const float index[2] = {0.5f, 1.0f / 3}, mass[2] = {0.25f, 0.75f};
    const float whole[2] = {0.5f, -1.0f}; /* the second head read the whole prefix */
    mb_recall_row recall[3] = {{2, 1, 3, 2, 0.375, 0.5, 0.3, index, mass},
                               {3, 1, 0, 2, 0, 0, 0, index, mass},
                               {4, 1, 1, 2, 0.5, 0.5, 0.3, whole, whole}};
    mb_counter_row counter = {"hits", "blocks", "higher", "sum", 5.5};
    int32_t histogram[9] = {0, 0, 2, 0, 0, 0, 0, 0, 1};
    mb_sample_row row = small_row(cell, "k1", 1.0 / 3);
    row.prediction = "eine \xc3\x9c"
                     "bung, \"quoted\"\n2";
    row.recalls = recall;
    row.recall_count = 3;
    row.counters = &counter;
    row.counter_count = 1;
    const mb_grid_row grid[3] = {{"rate", "", "higher", "mean", 0, 1, 3, 4},
                                 {"rate", "", "higher", "mean", 1, 0, 1, 8},
                                 {"reads", "keys", "lower", "sum", 1, -1, 20, 1}};
    row.grids = grid;
    row.grid_count = 3;
    row.forwards_histogram = histogram;
    row.histogram_size = 9;
    row.group = "0-4k";
    row.depth = 50;
    row.context = 128;
    OK(mb_store_sample(s.store, &row, &s.err));
    small_close(&s);
    OK(mb_store_open(&s.store, s.path, MB_STORE_READ, &s.err));
    assert_string_equal(small_query(s.store,
                                    "SELECT score, engaged, work, work_select, length, context, depth, bucket, "
                                    "prompt_tokens, token_hash, prefill_us, decode_us FROM v_samples"),
                        "0.3333333333333333,0.5,0.375,0.125,10,128,50,0-4k,100,k1,1000,2000\n");
    assert_string_equal(small_query(s.store, "SELECT score = 1.0 / 3 FROM v_samples"), "1\n");
    assert_string_equal(small_query(s.store, "SELECT prediction FROM v_samples"), "\"eine \xc3\x9c"
                                                                                  "bung, \"\"quoted\"\"\n2\"\n");
    /* The layer-step without a sparse block has no row. */
    assert_string_equal(
        small_query(s.store, "SELECT layer, step, blocks, index_recall, mass_recall FROM v_recall"),
        "2,1,3,0.375,0.5\n4,1,1,0.5,0.5\n");
    assert_string_equal(small_query(s.store, "SELECT index_heads, mass_heads FROM recall WHERE layer = 4"),
                        "\"[0.5,null]\",\"[0.5,null]\"\n");
    assert_string_equal(
        small_query(s.store,
                    "SELECT head, round(index_recall, 9), mass_recall FROM v_recall_head WHERE layer = 2"),
        "0,0.5,0.25\n1,0.333333343,0.75\n");
    assert_string_equal(small_query(s.store, "SELECT name, unit, aggregate, value FROM v_counters"),
                        "hits,blocks,sum,5.5\n");
    assert_string_equal(
        small_query(s.store, "SELECT name, unit, aggregate, layer, step, value, weight, n FROM v_counter_grid"),
        "rate,,mean,0,1,0.75,4,1\nrate,,mean,1,0,0.125,8,1\nreads,keys,sum,1,,20,1,1\n");
    assert_string_equal(small_query(s.store, "SELECT value FROM v_content WHERE relation = 'grid' ORDER BY key"),
                        "\"[\"\"\"\",\"\"higher\"\",\"\"mean\"\",\"\"3.0\"\",\"\"4.0\"\"]\"\n"
                        "\"[\"\"\"\",\"\"higher\"\",\"\"mean\"\",\"\"1.0\"\",\"\"8.0\"\"]\"\n"
                        "\"[\"\"keys\"\",\"\"lower\"\",\"\"sum\"\",\"\"20.0\"\",\"\"1.0\"\"]\"\n");
    assert_string_equal(small_query(s.store, "SELECT forwards, blocks FROM forwards"), "2,2\n8,1\n");
    small_close(&s);
    unlink(s.path);
}

static void finds_identities_again(void **state)
{
    (void)state;
    small_store a = {0}, b;
    small_path(&a, "ids");
    small_open(&a, 7);
    int64_t config = small_config(&a, "m", 0, 64), cell = small_cell(&a, config, "quality");
    small_sample(&a, cell, "k1", 0.5);
    small_close(&a);
    b = a;
    small_open(&b, 7);
    assert_int_equal(a.env, b.env);
    assert_int_equal(a.model, b.model);
    assert_int_equal(a.data, b.data);
    assert_int_equal(a.sampler, b.sampler);
    assert_int_equal(a.run, b.run);
    assert_int_equal(small_config(&b, "m", 0, 64), config);
    assert_int_not_equal(small_config(&b, "m", 0, 65), config);
    assert_int_equal(small_cell(&b, config, "quality"), cell);
    assert_int_not_equal(small_cell(&b, config, "recall"), cell);
    assert_int_equal(mb_store_has_sample(b.store, cell, "k1"), 1);
    assert_int_equal(mb_store_has_sample(b.store, cell, "k2"), 0);
    assert_int_equal(mb_store_cell_samples(b.store, cell), 1);
    mb_sample_row failed = {
        .cell = cell, .key = "k3", .status = "failed", .error = "why", .score = NAN, .depth = -1};
    OK(mb_store_sample(b.store, &failed, &b.err));
    assert_int_equal(mb_store_cell_samples(b.store, cell),
                     1); /* a failed one is tried again, so it counts as open */
    /* The first session was never ended: it was killed as far as the store knows. */
    assert_string_equal(small_query(b.store, "SELECT state FROM session ORDER BY id"), "killed\nrunning\n");
    /* A latency cell has no dataset, and is still one cell. */
    assert_int_equal(small_cell(&b, config, "latency"), small_cell(&b, config, "latency"));
    /* Another config text of the same identity extends a run (which keys do: tests/driver/test_keys.c); another
     * seed or another identity is another run. */
    int64_t run = 0;
    mb_run_row row = {"small", "{\"limit\": 9, \"tasks\": [\"qa\"]}", "{}", "c", 7, b.env, {0}};
    OK(mb_store_run(b.store, &row, &run, &b.err));
    assert_int_equal(run, b.run);
    row.seed = 8;
    OK(mb_store_run(b.store, &row, &run, &b.err));
    assert_int_not_equal(run, b.run);
    assert_string_equal(small_query(b.store, "SELECT label FROM run ORDER BY id"), "small\nsmall#2\n");
    OK(mb_store_run_end(b.store, b.run, "done", 1.5, 1024, &b.err));
    assert_string_equal(small_query(b.store, "SELECT state, peak_bytes, sessions FROM v_runs WHERE run = 'small'"),
                        "done,1024,3\n");
    small_close(&b);
    unlink(a.path);
}

static void replaces_failures_only(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "fail");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "m", 0, 64), "quality");
    mb_sample_row bad = {
        .cell = cell, .key = "k1", .status = "failed", .error = "f.jsonl:3: no answer", .score = NAN, .depth = -1};
    OK(mb_store_sample(s.store, &bad, &s.err));
    assert_int_equal(mb_store_has_sample(s.store, cell, "k1"), 0);
    assert_string_equal(small_query(s.store, "SELECT what, status, item, reason FROM v_failures"),
                        "sample,failed,k1,f.jsonl:3: no answer\n");
    small_sample(&s, cell, "k1", 0.5);
    assert_int_equal(mb_store_has_sample(s.store, cell, "k1"), 1);
    small_sample(&s, cell, "k1", 0.9); /* stored already: nothing changes */
    OK(mb_store_sample(s.store, &bad, &s.err));
    assert_string_equal(small_query(s.store, "SELECT status, score FROM v_samples"), "ok,0.5\n");
    OK(mb_store_cell_state(s.store, cell, "skipped", "needs a GPU", &s.err));
    assert_string_equal(small_query(s.store, "SELECT what, status, reason FROM v_failures"),
                        "cell,skipped,needs a GPU\n");
    small_sample(&s, cell, "k2", 1); /* it runs after all */
    assert_string_equal(small_query(s.store, "SELECT count(*) FROM v_failures"), "0\n");
    small_close(&s);
    unlink(s.path);
}

static void measures_again(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "again");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "m", 0, 64), "latency");
    mb_latency_row rows[5];
    for (int i = 0; i < 5; i++)
        rows[i] = (mb_latency_row){.phase = i < 3 ? "later_step" : "commit",
                                   .context = 64,
                                   .batch = 1,
                                   .steps = 4,
                                   .us = 10 + i,
                                   .throttle = -1,
                                   .temperature = NAN,
                                   .power = NAN,
                                   .other_processes = -1,
                                   .kept = true,
                                   .timer = "host_clock"};
    OK(mb_store_latency(s.store, cell, rows, 5, &s.err));
    rows[0].us = 99;
    OK(mb_store_latency(s.store, cell, rows, 1, &s.err));
    assert_string_equal(small_query(s.store, "SELECT phase, i, time_us, throttle IS NULL FROM latency"),
                        "commit,0,13,1\ncommit,1,14,1\nlater_step,0,99,1\n");
    mb_breakdown_row parts[2] = {{64, 1, "later", "gemm", 5, 3}, {64, 1, "later", "selection", 2, 1}};
    OK(mb_store_breakdown(s.store, cell, parts, 2, &s.err));
    parts[1].part = "sampler";
    OK(mb_store_breakdown(s.store, cell, parts, 2, &s.err));
    assert_string_equal(small_query(s.store, "SELECT part FROM breakdown ORDER BY i"), "gemm\nsampler\n");
    mb_memory_row memory = {64, 1, 1, 2, 3, 4, 10};
    OK(mb_store_memory(s.store, cell, &memory, &s.err));
    memory.peak = 11;
    OK(mb_store_memory(s.store, cell, &memory, &s.err));
    assert_string_equal(small_query(s.store, "SELECT peak_bytes FROM v_memory"), "11\n");
    small_close(&s);
    unlink(s.path);
}

/* ---- refusals ---- */

static void expect_refusal(const char *path, mb_store_mode mode, const char *words)
{
    mb_error err = {0};
    mb_store *store = NULL;
    assert_int_equal(mb_store_open(&store, path, mode, &err), MB_E_INPUT);
    assert_null(store);
    if (!strstr(err.text, words) || !strstr(err.text, path))
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

static void write_database(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void refuses_what_is_not_ours(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "alien");
    expect_refusal(s.path, MB_STORE_READ, "no such file");
    OK(mb_file_write(s.path, "", 0, &s.err));
    expect_refusal(s.path, MB_STORE_READ, "empty");
    unlink(s.path);
    write_database(s.path, "CREATE TABLE mine(x); INSERT INTO mine VALUES (1)");
    expect_refusal(s.path, MB_STORE_WRITE, "another program");
    expect_refusal(s.path, MB_STORE_READ, "another program");
    unlink(s.path);
    OK(mb_file_write(s.path, "this is no database, but a text of some length, as one has them", 63, &s.err));
    expect_refusal(s.path, MB_STORE_WRITE, "not an SQLite database");
    unlink(s.path);
    expect_refusal("/tmp", MB_STORE_WRITE, "is a folder");
    small_open(&s, 7);
    small_close(&s);
    write_database(s.path, "PRAGMA user_version = 99");
    expect_refusal(s.path, MB_STORE_WRITE, "schema version 99");
    expect_refusal(s.path, MB_STORE_READ, "schema version 99");
    unlink(s.path);
}

static void refuses_a_damaged_file(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "damage");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "m", 0, 64), "quality");
    for (int i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        small_sample(&s, cell, key, 0.5);
    }
    small_close(&s);
    struct stat st;
    int fd = open(s.path, O_RDWR);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    char noise[4096 * 8];
    memset(noise, 0xa5, sizeof noise);
    assert_true(pwrite(fd, noise, sizeof noise, st.st_size / 2 / 4096 * 4096) == (ssize_t)sizeof noise);
    close(fd);
    expect_refusal(s.path, MB_STORE_WRITE, "damaged");
    unlink(s.path);
}

static void refuses_a_second_writer(void **state)
{
    (void)state;
    small_store s = {0};
    mb_error err = {0};
    mb_store *other = NULL;
    small_path(&s, "busy");
    small_open(&s, 7);
    expect_refusal(s.path, MB_STORE_WRITE, "another program is writing");
    OK(mb_store_open(&other, s.path, MB_STORE_READ, &err)); /* reading is fine meanwhile */
    assert_string_equal(small_query(other, "SELECT count(*) FROM v_runs"), "1\n");
    int64_t cell = small_cell(&s, small_config(&s, "m", 0, 64), "quality");
    small_sample(&s, cell, "k1", 1);
    assert_string_equal(small_query(other, "SELECT count(*) FROM v_samples"), "1\n");
    mb_sample_row row = small_row(cell, "k2", 1);
    assert_int_equal(mb_store_sample(other, &row, &err), MB_E_BUG);
    OK(mb_store_close(other, &err));
    small_close(&s);
    sqlite3 *foreign; /* any other SQLite client that holds the write lock */
    assert_int_equal(sqlite3_open(s.path, &foreign), SQLITE_OK);
    assert_int_equal(sqlite3_exec(foreign, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    expect_refusal(s.path, MB_STORE_WRITE, "another program is writing");
    sqlite3_close(foreign);
    small_open(&s, 7);
    small_close(&s);
    unlink(s.path);
}

/* As a user who may not write there: root may write everywhere, so a child drops its rights. */
static void refuses_a_read_only_folder(void **state)
{
    (void)state;
    char folder[] = "/tmp/mb-read-only-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/x.db", folder);
    small_store s = {0};
    snprintf(s.path, sizeof s.path, "%s", path);
    small_open(&s, 7);
    small_close(&s);
    chmod(path, 0444);
    chmod(folder, 0555);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        mb_error err = {0};
        mb_store *store = NULL;
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(9);
        int rc = mb_store_open(&store, path, MB_STORE_WRITE, &err);
        if (rc != MB_E_INPUT || !strstr(err.text, path) || !strstr(err.text, "--db"))
            _exit(1);
        if (mb_store_open(&store, path, MB_STORE_READ, &err) != MB_OK) /* it can still be read */
            _exit(2);
        mb_store_close(store, NULL);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    chmod(folder, 0755);
    unlink(path);
    rmdir(folder);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 9)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- full disk ---- */

static void survives_a_full_database(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "full");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "m", 0, 64), "quality");
    small_sample(&s, cell, "first", 1);
    small_query(s.store, "SELECT 1");
    char *pages = small_query(s.store, "SELECT * FROM pragma_page_count");
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA max_page_count = %d", atoi(pages) + 2);
    OK(store_exec(s.store, sql, "limiting", &s.err));
    int rc = MB_OK;
    char key[16], big[4096];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    int stored = 1;
    for (int i = 0; i < 50 && rc == MB_OK; i++, stored++) {
        snprintf(key, sizeof key, "k%d", i);
        mb_sample_row row = small_row(cell, key, 1);
        row.prediction = big;
        rc = mb_store_sample(s.store, &row, &s.err);
    }
    stored--;
    assert_int_equal(rc, MB_E_SYSTEM);
    assert_non_null(strstr(s.err.text, "disk is full"));
    assert_int_equal(mb_store_cell_samples(s.store, cell), stored);
    OK(store_exec(s.store, "PRAGMA max_page_count = 100000", "limiting", &s.err));
    small_sample(&s, cell, key, 1); /* the same sample goes in once there is room */
    assert_string_equal(small_query(s.store, "SELECT * FROM pragma_integrity_check"), "ok\n");
    small_close(&s);
    unlink(s.path);
}

/* The file system itself refuses: a limit on the size of files, in a child that also sees EFBIG as an error. */
static void survives_a_file_limit(void **state)
{
    (void)state;
    small_store s = {0};
    small_path(&s, "limit");
    small_open(&s, 7);
    small_sample(&s, small_cell(&s, small_config(&s, "m", 0, 64), "quality"), "first", 1);
    small_close(&s);
    struct stat st;
    assert_int_equal(stat(s.path, &st), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit limit = {(rlim_t)65536, (rlim_t)65536};
        char key[16];
        mb_error err = {0};
        signal(SIGXFSZ, SIG_IGN);
        small_store c = s;
        small_open(&c, 7);
        int64_t cell = small_cell(&c, small_config(&c, "m", 0, 64), "quality");
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(9);
        int rc = MB_OK;
        for (int i = 0; i < 500 && rc == MB_OK; i++) {
            snprintf(key, sizeof key, "k%d", i);
            mb_sample_row row = small_row(cell, key, 1);
            rc = mb_store_sample(c.store, &row, &err);
        }
        mb_store_close(c.store, NULL);
        _exit(rc == MB_E_SYSTEM && strstr(err.text, "disk") && strstr(err.text, c.path) ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    small_open(&s, 7);
    assert_string_equal(small_query(s.store, "SELECT * FROM pragma_integrity_check"), "ok\n");
    assert_string_equal(small_query(s.store, "SELECT count(*) >= 1 FROM v_samples"), "1\n");
    small_close(&s);
    unlink(s.path);
}

/* ---- SIGKILL ---- */

/* A child stores samples and says a byte after each; the parent kills it in the middle, again and again. What was
 * said is stored, whole, once. */
static void survives_sigkill(void **state)
{
    (void)state;
    small_store s = {0};
    mb_random draw = mb_random_seed(5);
    int acknowledged = 0;
    small_path(&s, "kill");
    for (int round = 0; round < 20; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            const float head[1] = {0.5f};
            mb_recall_row recall[3] = {{0, 1, 1, 1, 0.5, 0.5, 0.5, head, head},
                                       {1, 1, 1, 1, 0.5, 0.5, 0.5, head, head},
                                       {2, 1, 1, 1, 0.5, 0.5, 0.5, head, head}};
            small_store c = s;
            close(pipes[0]);
            small_open(&c, 7);
            int64_t cell = small_cell(&c, small_config(&c, "m", 0, 64), "quality");
            for (int i = 0;; i++) {
                char key[16];
                snprintf(key, sizeof key, "k%d", i);
                if (mb_store_has_sample(c.store, cell, key))
                    continue;
                mb_sample_row row = small_row(cell, key, 1);
                row.recalls = recall;
                row.recall_count = 3;
                if (mb_store_sample(c.store, &row, &c.err) != MB_OK || write(pipes[1], "x", 1) != 1)
                    _exit(1);
            }
        }
        close(pipes[1]);
        char byte;
        int wanted = 1 + (int)mb_random_below(&draw, 12);
        while (wanted-- > 0 && read(pipes[0], &byte, 1) == 1)
            acknowledged++;
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
        while (read(pipes[0], &byte, 1) == 1)
            acknowledged++;
        close(pipes[0]);
        assert_true(WIFSIGNALED(status));
    }
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "m", 0, 64), "quality");
    int64_t stored = mb_store_cell_samples(s.store, cell);
    assert_in_range(stored, acknowledged, acknowledged + 20); /* at most one a round was not yet said */
    char expected[64];
    snprintf(expected, sizeof expected, "%lld,%lld\n", (long long)stored, (long long)stored);
    assert_string_equal(small_query(s.store,
                                    "SELECT count(*), sum(n = 3) FROM (SELECT (SELECT count(*) FROM recall r "
                                    "WHERE r.sample_id = s.sample_id) AS n FROM v_samples s)"),
                        expected);
    snprintf(expected, sizeof expected, "%lld\n", (long long)stored - 1); /* k0, k1, ... without a gap */
    assert_string_equal(small_query(s.store, "SELECT max(CAST(substr(item, 2) AS INTEGER)) FROM v_samples"),
                        expected);
    assert_string_equal(small_query(s.store, "SELECT * FROM pragma_integrity_check"), "ok\n");
    assert_string_equal(small_query(s.store, "SELECT * FROM pragma_foreign_key_check"), "");
    small_close(&s);
    unlink(s.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_a_sample),           cmocka_unit_test(finds_identities_again),
        cmocka_unit_test(replaces_failures_only),   cmocka_unit_test(measures_again),
        cmocka_unit_test(refuses_what_is_not_ours), cmocka_unit_test(refuses_a_damaged_file),
        cmocka_unit_test(refuses_a_second_writer),  cmocka_unit_test(refuses_a_read_only_folder),
        cmocka_unit_test(survives_a_full_database), cmocka_unit_test(survives_a_file_limit),
        cmocka_unit_test(survives_sigkill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
