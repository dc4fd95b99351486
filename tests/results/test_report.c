/*
 * test_report.c - tables and the comparison report: what people see says what the views hold, in every format,
 * inside the width that was asked for.
 */
#include "tests/results/small_store.h"

#include "results/store.h"

#include "tests/results/fake_store.h"

static char fake_path[128];

static int make_store(void **state)
{
    const char *folder = getenv("TMPDIR");
    (void)state;
    snprintf(fake_path, sizeof fake_path, "%s/mb-report-%ld.db", folder ? folder : "/tmp", (long)getpid());
    unlink(fake_path);
    return fake_store(fake_path, 2);
}

static int remove_store(void **state)
{
    (void)state;
    return unlink(fake_path);
}

static mb_store *open_fake(void)
{
    mb_error err = {0};
    mb_store *store = NULL;
    OK(mb_store_open(&store, fake_path, MB_STORE_READ, &err));
    return store;
}

/* ---- the printer ---- */

static void expect_table(mb_store *store, const char *sql, mb_table_format format, int width, const char *expected)
{
    mb_error err = {0};
    mb_text out = {0};
    OK(mb_table_query(store, sql, format, width, &out, &err));
    assert_string_equal(out.data ? out.data : "", expected);
    mb_text_free(&out);
}

static void prints_every_format(void **state)
{
    static const char sql[] = "SELECT 'a|b' AS name, 12 AS n, 0.1 + 0.2 AS x, NULL AS y UNION ALL "
                              "SELECT '\xe4\xb8\xad' || char(10) || '\"q\"', -3, 2.0, 'z'";
    mb_store *store = open_fake();
    (void)state;
    expect_table(
        store, sql, MB_TABLE_TERMINAL, 0,
        "name     n       x  y\n"
        "\xe2\x94\x80\xe2\x94\x80\xe2\x94\x80\xe2\x94\x80\xe2\x94\x80\xe2\x94\x80  "
        "\xe2\x94\x80\xe2\x94\x80  \xe2\x94\x80\xe2\x94\x80\xe2\x94\x80\xe2\x94\x80\xe2\x94\x80\xe2\x94\x80  "
        "\xe2\x94\x80\n"
        "a|b     12  0.3000  -\n"
        "\xe4\xb8\xad\xe2\x8f\x8e\"q\"  -3  2.0000  z\n");
    expect_table(store, sql, MB_TABLE_MARKDOWN, 0,
                 "| name | n | x | y |\n|---|---:|---:|---|\n| a\\|b | 12 | 0.3000 | - |\n"
                 "| \xe4\xb8\xad \"q\" | -3 | 2.0000 | z |\n");
    expect_table(store, sql, MB_TABLE_CSV, 0,
                 "name,n,x,y\na|b,12,0.30000000000000004,\n\"\xe4\xb8\xad\n\"\"q\"\"\",-3,2,z\n");
    expect_table(store, sql, MB_TABLE_JSONL, 0,
                 "{\"name\": \"a|b\", \"n\": 12, \"x\": 0.30000000000000004, \"y\": null}\n"
                 "{\"name\": \"\xe4\xb8\xad\\n\\\"q\\\"\", \"n\": -3, \"x\": 2, \"y\": \"z\"}\n");
    expect_table(store, "SELECT 1 AS a WHERE 0", MB_TABLE_TERMINAL, 0, "(no rows)\n");
    expect_table(store, "SELECT 1 AS a WHERE 0", MB_TABLE_CSV, 0, "a\n");
    mb_store_close(store, NULL);
}

/* Longest line in columns. */
static size_t widest_line(const char *text)
{
    size_t widest = 0;
    while (*text) {
        size_t n = strcspn(text, "\n");
        char line[4096];
        snprintf(line, sizeof line, "%.*s", (int)n, text);
        size_t columns = text_columns(line);
        widest = columns > widest ? columns : widest;
        text += n + (text[n] == '\n');
    }
    return widest;
}

static void narrows_long_text(void **state)
{
    mb_error err = {0};
    mb_text out = {0};
    mb_store *store = open_fake();
    (void)state;
    OK(mb_table_query(store,
                      "SELECT prediction || prediction || prediction AS a, answers, item FROM v_samples LIMIT 5",
                      MB_TABLE_TERMINAL, 50, &out, &err));
    assert_true(widest_line(out.data) <= 50);
    assert_non_null(strstr(out.data, "\xe2\x80\xa6"));
    mb_text_free(&out);
    mb_store_close(store, NULL);
}

/* Labels that differ at their end stay whole: the table breaks instead. Long prose is cut as before. */
static void keeps_labels_apart(void **state)
{
    static const char sql[] = "SELECT 'a method with a long label k=64 page=16' AS label, 1000001 AS first, "
                              "1000002 AS second, 1000003 AS third "
                              "UNION ALL SELECT 'a method with a long label k=64 page=32', 1, 2, 3";
    mb_error err = {0};
    mb_text out = {0};
    mb_store *store = open_fake();
    (void)state;
    OK(mb_table_query(store, sql, MB_TABLE_TERMINAL, 60, &out, &err));
    assert_non_null(strstr(out.data, "page=16"));
    assert_non_null(strstr(out.data, "page=32"));
    assert_true(widest_line(out.data) <= 60);
    mb_text_free(&out);
    mb_store_close(store, NULL);
}

/* A speed-up never stands without its baseline; a GPU without a measurement is said to have none. */
static void names_the_baseline(void **state)
{
    mb_error err = {0};
    mb_text out = {0};
    mb_store *store = open_fake();
    (void)state;
    OK(mb_report(store, NULL, &(mb_report_options){MB_TABLE_MARKDOWN, 0, true, NULL}, &out, &err));
    assert_non_null(strstr(out.data,
                           "baseline of every speed-up: this program's exact attention; it was not measured "
                           "against a public kernel on a GPU\n"));
    mb_text_free(&out);
    mb_store_close(store, NULL);
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(fake_path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE env SET gpu = 'NVIDIA H200'", NULL, NULL, NULL), SQLITE_OK);
    store = open_fake();
    OK(mb_report(store, NULL, &(mb_report_options){MB_TABLE_MARKDOWN, 0, true, NULL}, &out, &err));
    assert_non_null(strstr(out.data, "of FlashAttention-3 (fa3-fwd 0.0.3)'s on NVIDIA H200 (2026-11-30, "));
    mb_text_free(&out);
    mb_store_close(store, NULL);
    assert_int_equal(sqlite3_exec(db, "UPDATE env SET gpu = 'a GPU'", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void refuses_what_is_no_select(void **state)
{
    mb_error err = {0};
    mb_text out = {0};
    mb_store *store = open_fake();
    (void)state;
    assert_int_equal(mb_table_query(store, "DELETE FROM sample", MB_TABLE_CSV, 0, &out, &err), MB_E_INPUT);
    assert_int_equal(mb_table_query(store, "SELEC 1", MB_TABLE_CSV, 0, &out, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "SELEC"));
    assert_int_equal(mb_table_query(store, "", MB_TABLE_CSV, 0, &out, &err), MB_E_INPUT);
    mb_text_free(&out);
    mb_store_close(store, NULL);
}

/* ---- the report ---- */

static char *report(mb_store *store, const char *run, mb_table_format format, int width)
{
    mb_error err = {0};
    mb_text out = {0};
    int rc = mb_report(store, run, &(mb_report_options){format, width, true, NULL}, &out, &err);
    if (rc != MB_OK)
        fail_msg("%s", err.text);
    return mb_text_take(&out);
}

static void report_says_everything(void **state)
{
    mb_store *store = open_fake();
    (void)state;
    char *text = report(store, NULL, MB_TABLE_TERMINAL, 140);
    const char *const words[] = {"run fake",
                                 "fake-1b",
                                 "seed 42",
                                 "0123456789ab",
                                 "mage k=256",
                                 "oracle k=1024",
                                 "sampler T=8/32",
                                 "sampler threshold 0.9",
                                 "paired difference to exact",
                                 "latency",
                                 "needs queries before RoPE",
                                 "refreshes",
                                 "skip  graph and eager agree",
                                 "pass  oracle bounds the recall"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(text, words[i]))
            fail_msg("the report does not say \"%s\"", words[i]);
    assert_null(strstr(text, "\033["));
    /* The mean of exact over the seven tasks, and its mean line. */
    char *mean =
        small_query(store, "SELECT printf('%.1f', 100 * avg(score)) FROM v_accuracy WHERE method = 'exact' AND "
                           "sampler = 'T=8/32'");
    mean[strcspn(mean, "\n")] = '\0';
    assert_non_null(strstr(text, mean));
    free(text);
    text = report(store, "fake", MB_TABLE_MARKDOWN, 0);
    assert_non_null(strstr(text, "| method |"));
    assert_non_null(strstr(text, "## run fake"));
    assert_null(strstr(text, "\xe2\x94\x80"));
    free(text);
    mb_store_close(store, NULL);
}

static void report_fits_the_width(void **state)
{
    mb_store *store = open_fake();
    (void)state;
    for (int width = 100; width <= 150; width += 50) {
        char *text = report(store, NULL, MB_TABLE_TERMINAL, width);
        if (widest_line(text) > (size_t)(width < 125 ? 125 : width)) /* prose lines may take 125 */
            fail_msg("%zu columns at width %d", widest_line(text), width);
        free(text);
    }
    mb_store_close(store, NULL);
}

static void report_is_the_same_twice(void **state)
{
    mb_store *store = open_fake();
    (void)state;
    char *a = report(store, NULL, MB_TABLE_CSV, 0), *b = report(store, "1", MB_TABLE_CSV, 0);
    assert_string_equal(a, b);
    assert_non_null(strstr(a, "run,model,sampler,task,method,config,k,score"));
    free(a);
    free(b);
    mb_error err = {0};
    mb_text out = {0};
    assert_int_equal(mb_report(store, "nobody", &(mb_report_options){MB_TABLE_CSV, 0, true, NULL}, &out, &err),
                     MB_E_INPUT);
    assert_non_null(strstr(err.text, "nobody"));
    mb_text_free(&out);
    mb_store_close(store, NULL);
}

/* An interval of the report's CSV covers the paired mean of the view. */
static void report_agrees_with_the_views(void **state)
{
    mb_store *store = open_fake();
    (void)state;
    char *text = report(store, NULL, MB_TABLE_CSV, 0);
    char *line = strstr(text, "T=8/32,qasper,mage,mage k=256,256,");
    assert_non_null(line);
    double score, delta, low, high;
    int n;
    assert_int_equal(
        sscanf(line, "T=8/32,qasper,mage,mage k=256,256,%lf,%d,%lf,%lf,%lf", &score, &n, &delta, &low, &high), 5);
    char *row =
        small_query(store, "SELECT a.score, a.n, p.mean FROM v_accuracy a JOIN v_paired p USING (config_id, "
                           "sampler_id, dataset_id) WHERE a.config = 'mage k=256' AND a.task = 'qasper' AND "
                           "a.sampler = 'T=8/32'");
    double view_score, view_delta;
    int view_n;
    assert_int_equal(sscanf(row, "%lf,%d,%lf", &view_score, &view_n, &view_delta), 3);
    assert_float_equal(score, view_score, 1e-12);
    assert_int_equal(n, view_n);
    assert_float_equal(delta, view_delta, 1e-12);
    assert_true(low <= delta && delta <= high && low < high);
    free(text);
    mb_store_close(store, NULL);
}

static void a_failed_gate_is_red(void **state)
{
    small_store s = {0};
    (void)state;
    small_path(&s, "red");
    small_open(&s, 7);
    OK(mb_store_gate(s.store, s.run, "some gate", "fail", "because", &s.err));
    char *text = report(s.store, NULL, MB_TABLE_TERMINAL, 0);
    assert_non_null(strstr(text, "FAIL  some gate: because"));
    free(text);
    text = report(s.store, NULL, MB_TABLE_MARKDOWN, 0);
    assert_non_null(strstr(text, "**FAIL  some gate: because**"));
    free(text);
    small_close(&s);
    unlink(s.path);
}

/* Without --full: one table, gates, where the files are. A screen of 40 lines has room for it. */
static void fits_a_screen(void **state)
{
    mb_error err = {0};
    mb_text out = {0};
    size_t lines = 0;
    mb_store *store = open_fake();
    (void)state;
    OK(mb_report(store, NULL, &(mb_report_options){MB_TABLE_TERMINAL, 200, false, NULL}, &out, &err));
    for (const char *at = out.data; (at = strchr(at, '\n')); at++)
        lines++;
    assert_true(lines <= 40);
    const char *const words[] = {"run fake", "mage k=256", "paired", "speed-up", "gates: ", "--full"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(out.data, words[i]))
            fail_msg("the short report does not say \"%s\"", words[i]);
    mb_text_free(&out);
    mb_store_close(store, NULL);
}

/* The page is one file: nothing is loaded from anywhere, and foreign text is no markup. */
static void page_is_one_file(void **state)
{
    small_store s = {0};
    (void)state;
    small_path(&s, "page");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "exact", 8, -1), "quality");
    mb_sample_row row = small_row(cell, "k<1>", 1);
    row.prediction = "</pre><script>alert(1)</script> & \x01";
    char prompt[9001];
    memset(prompt, 'x', sizeof prompt - 1);
    memcpy(prompt, "<b>first", 8);
    memcpy(prompt + 4000, "needle \"a\" \xe4\xb8\xad", 14);
    memcpy(prompt + 8990, "</pre>last", 11);
    row.answers_json = "[\"needle\"]";
    row.record =
        &(mb_record_row){.prompt = prompt, .token_bytes = (const unsigned char *)"\x01", .token_bytes_size = 1};
    OK(mb_store_sample(s.store, &row, &s.err));
    OK(mb_store_gate(s.store, s.run, "some gate", "fail", "because a < b", &s.err));
    char *text = report(s.store, NULL, MB_TABLE_HTML, 0);
    assert_true(strncmp(text, "<!DOCTYPE html>", 15) == 0);
    assert_non_null(strstr(text, "<p class=\"bad\">FAIL  some gate: because a &lt; b</p>"));
    assert_non_null(strstr(text, "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp; \xef\xbf\xbd"));
    assert_non_null(strstr(text, "<summary>qa k&lt;1&gt;</summary>\n"));
    /* The prompt: its ends and what stands around a reference, marked; the rest is counted, not shown. */
    assert_non_null(strstr(text, "<details><summary>prompt, 100 tokens</summary>\n<pre>&lt;b&gt;firstxxx"));
    assert_non_null(strstr(text, "xxx\xe2\x96\xb6needle\xe2\x97\x80 &quot;a&quot; \xe4\xb8\xad"
                                 "xxx"));
    assert_non_null(strstr(text, "\n[... 2200 bytes ...]\n"));
    assert_non_null(strstr(text, "&lt;/pre&gt;last</pre>"));
    assert_null(strstr(text, "<script>alert"));
    assert_null(strstr(text, "src="));
    assert_null(strstr(text, "http"));
    assert_null(strstr(text, "<link"));
    assert_non_null(strstr(text, "@media print"));
    free(text);
    text = report(s.store, NULL, MB_TABLE_LATEX, 0);
    assert_non_null(strstr(text, "\\toprule"));
    assert_non_null(strstr(text, "\\textbf{FAIL  some gate: because a < b}"));
    free(text);
    small_close(&s);
    unlink(s.path);
}

static char *short_report(mb_store *store, const char *run)
{
    mb_error err = {0};
    mb_text out = {0};
    OK(mb_report(store, run, &(mb_report_options){MB_TABLE_MARKDOWN, 0, false, NULL}, &out, &err));
    return mb_text_take(&out);
}

/* However many items a run has and however long their texts are, a page holds a bounded part; items whose prompt
 * is known come first. */
static void page_is_bounded(void **state)
{
    small_store s = {0};
    char key[16];
    char *prediction = calloc(1, 20001);
    size_t items = 0;
    mb_record_row record = {.prompt = "kept", .token_bytes = (const unsigned char *)"\x04", .token_bytes_size = 1};
    (void)state;
    memset(prediction, 'y', 20000);
    small_path(&s, "bounded");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "exact", 8, -1), "quality");
    for (int i = 0; i < 80; i++) {
        snprintf(key, sizeof key, "k%02d", i);
        mb_sample_row row = small_row(cell, key, 1);
        row.prediction = prediction;
        row.record = i == 79 ? &record : NULL;
        OK(mb_store_sample(s.store, &row, &s.err));
    }
    char *text = report(s.store, NULL, MB_TABLE_HTML, 0);
    assert_true(strlen(text) < 200000);
    for (const char *at = text; (at = strstr(at, "<summary>qa k")); at++)
        items++;
    assert_int_equal(items, 60);
    assert_true(strncmp(strstr(text, "<summary>qa k"), "<summary>qa k79", 15) == 0);
    assert_non_null(strstr(text, "<pre>kept</pre>"));
    assert_non_null(strstr(text, "more items: ./harness show "));
    free(text);
    free(prediction);
    small_close(&s);
    unlink(s.path);
}

/* A list of two models and two seeds, and a run of another config. Scores of exact are 40 and 60 under the first
 * model, so 50 with a standard deviation of 14.1; window is 10 points below it at one seed, 30 at the other. */
static void one_table_over_models_and_seeds(void **state)
{
    small_store s = {0};
    (void)state;
    small_path(&s, "seeds");
    for (int i = 0; i < 5; i++) {
        char name[] = "m1", text[128];
        uint64_t seed = (uint64_t)(1 + i % 2);
        name[1] = (char)('1' + i / 2);
        small_open(&s, seed);
        mb_model_row model = {.name = name,
                              .family = "sdar",
                              .config_hash = name,
                              .weights_hash = name,
                              .tokenizer_hash = "c",
                              .type = "f32",
                              .layers = 4,
                              .query_heads = 4,
                              .kv_heads = 2,
                              .head_dim = 32,
                              .hidden = 128,
                              .block = 16,
                              .vocab = 100};
        snprintf(text, sizeof text, "{\"model\": \"%s\", \"seed\": %d, \"limit\": %d}", name, (int)seed,
                 i == 4 ? 8 : 4);
        mb_run_row run = {"list", text, text, "cmd", seed, s.env, {0}};
        OK(mb_store_model(s.store, &model, &s.model, &s.err));
        OK(mb_store_run(s.store, &run, &s.run, &s.err));
        int64_t exact = small_cell(&s, small_config(&s, "exact", 8, -1), "quality");
        int64_t window = small_cell(&s, small_config(&s, "window", 0, 64), "quality");
        double score = i == 0 ? 0.4 : i == 1 ? 0.6 : 0.8;
        small_sample(&s, exact, "a", score);
        small_sample(&s, window, "a", score - (seed == 1 ? 0.1 : 0.3));
        if (i == 2)
            OK(mb_store_gate(s.store, s.run, "some gate", "fail", "because", &s.err));
        small_close(&s);
    }
    small_open(&s, 9);
    const char *const lines[] = {
        "scores in percent of 4 runs of this config: 2 models",
        "| method | m1 mean | paired \xce\x94 | work | m2 mean | paired \xce\x94 | work |",
        "| exact | 50.0 \xc2\xb1"
        "14.1 | - | 0.38 | 80.0 \xc2\xb1"
        "0.0 | - | 0.38 |",
        "| window k=64 | 30.0 \xc2\xb1"
        "0.0 | -20.0 \xc2\xb1"
        "14.1 | 0.38 | 60.0 \xc2\xb1"
        "14.1 | -20.0 \xc2\xb1"
        "14.1 ",
        "**FAIL  run list#3: some gate: because**",
        "seeds behind every number: 2"};
    char *text = report(s.store, "list#4", MB_TABLE_MARKDOWN, 0);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (!strstr(text, lines[i]))
            fail_msg("not in the report: %s\n%s", lines[i], text);
    free(text);
    text = short_report(s.store, "list#4"); /* asked for by name: its own table */
    assert_non_null(strstr(text, "| exact | 80.0 | - | 0.38 |"));
    assert_null(strstr(text, "m1 mean"));
    free(text);
    text = short_report(s.store, "list#5"); /* another limit: another config */
    assert_null(strstr(text, "of this config"));
    free(text);
    small_close(&s);
    unlink(s.path);
}

/* A run that lacks a task of its config is in no mean over seeds. */
static void a_half_run_is_in_no_mean(void **state)
{
    small_store s = {0};
    (void)state;
    small_path(&s, "half");
    for (uint64_t seed = 1; seed <= 3; seed++) {
        small_open(&s, seed);
        mb_dataset_row data = {"other", "longbench", "single-doc QA", "en", "qa_f1", "f", "p", NULL, 32};
        int64_t exact = small_config(&s, "exact", 8, -1), window = small_config(&s, "window", 0, 64);
        small_sample(&s, small_cell(&s, exact, "quality"), "a", 1);
        small_sample(&s, small_cell(&s, window, "quality"), "a", 1);
        OK(mb_store_dataset(s.store, &data, &s.data, &s.err));
        small_sample(&s, small_cell(&s, exact, "quality"), "b", 0.5);
        if (seed < 3)
            small_sample(&s, small_cell(&s, window, "quality"), "b", 0);
        small_close(&s);
    }
    small_open(&s, 3);
    char *text = short_report(s.store, NULL);
    assert_non_null(strstr(text, "| method | tiny mean | paired \xce\x94 | work | seeds |"));
    assert_non_null(strstr(text, "| exact | 75.0 \xc2\xb1"
                                 "0.0 | - | 0.38 | 3 |"));
    assert_non_null(strstr(text, "| window k=64 | 50.0 \xc2\xb1"
                                 "0.0 | -25.0 \xc2\xb1"
                                 "0.0 | 0.38 | 2 |"));
    free(text);
    small_close(&s);
    unlink(s.path);
}

/* Prompts of 100 and 3000 tokens: one column each. */
static void scores_by_context_length(void **state)
{
    small_store s = {0};
    (void)state;
    small_path(&s, "lengths");
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "exact", 8, -1), "quality");
    small_sample(&s, cell, "a", 1);
    mb_sample_row row = small_row(cell, "b", 0.25);
    row.prompt_tokens = 3000;
    OK(mb_store_sample(s.store, &row, &s.err));
    char *text = report(s.store, NULL, MB_TABLE_MARKDOWN, 0);
    assert_non_null(strstr(text, "| method | to 512 | to 4K |\n|---|---:|---:|\n| exact | 100.0 | 25.0 |"));
    free(text);
    small_close(&s);
    unlink(s.path);
}

/* A table that no cutting makes fit is continued below: no line is wider than asked, no label is cut. */
static void wide_tables_go_on_below(void **state)
{
    small_store s = {0};
    mb_text out = {0};
    size_t labels = 0, values = 0;
    (void)state;
    small_path(&s, "wide");
    small_open(&s, 7);
    OK(mb_table_query(s.store,
                      "SELECT 'a method k=1024' AS method, 1000001 AS first, 1000002 AS second, 1000003 AS third, "
                      "1000004 AS fourth, 1000005 AS fifth, 1000006 AS sixth",
                      MB_TABLE_TERMINAL, 40, &out, &s.err));
    for (const char *line = out.data; *line;) {
        size_t n = strcspn(line, "\n"), columns = 0;
        for (size_t i = 0; i < n; i++)
            columns += ((unsigned char)line[i] & 0xc0) != 0x80;
        assert_true(columns <= 40);
        labels += strncmp(line, "a method k=1024", 15) == 0;
        for (size_t i = 0; i + 7 <= n; i++)
            values += strncmp(line + i, "100000", 6) == 0;
        line += n + (line[n] == '\n');
    }
    assert_int_equal(labels, 3);
    assert_int_equal(values, 6);
    mb_text_free(&out);
    small_close(&s);
    unlink(s.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prints_every_format),
        cmocka_unit_test(narrows_long_text),
        cmocka_unit_test(keeps_labels_apart),
        cmocka_unit_test(names_the_baseline),
        cmocka_unit_test(refuses_what_is_no_select),
        cmocka_unit_test(report_says_everything),
        cmocka_unit_test(report_fits_the_width),
        cmocka_unit_test(report_is_the_same_twice),
        cmocka_unit_test(report_agrees_with_the_views),
        cmocka_unit_test(a_failed_gate_is_red),
        cmocka_unit_test(wide_tables_go_on_below),
        cmocka_unit_test(fits_a_screen),
        cmocka_unit_test(page_is_one_file),
        cmocka_unit_test(page_is_bounded),
        cmocka_unit_test(one_table_over_models_and_seeds),
        cmocka_unit_test(a_half_run_is_in_no_mean),
        cmocka_unit_test(scores_by_context_length),
    };
    return cmocka_run_group_tests(tests, make_store, remove_store);
}
