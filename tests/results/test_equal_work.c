/*
 * test_equal_work.c - v_curve, v_work and v_equal_work against the same numbers worked out here from the raw
 * samples: which configurations form a curve, what lies between two of them, and that nothing lies outside.
 */
#include "tests/results/small_store.h"

#include "results/store.h"

enum {
    TASKS = 2,
    SAMPLES = 3
}; /* two samples of task 0, one of task 1: mean over tasks is not mean over samples */

typedef struct arm {
    const char *method, *label, *options, *curve;
    int64_t k;
    double work[SAMPLES], select, score[SAMPLES]; /* score < 0: the sample is not there */
    double index[TASKS], mass[TASKS];             /* 0: no recall */
    int32_t forwards;
} arm;

/* Out of order of work, with a tie (quest k=64 and k=128), a point on a level (0.5), a curve of one point, a curve
 * that lacks a task and two that sweep something else than k. */
static const arm arms[] = {
    {"exact", "exact", "{}", "exact", -1, {1, 1, 1}, 0, {1, 1, 1}, {0}, {0}, 8},
    {"quest",
     "quest k=256 page=16",
     "{\"k\":256,\"page\":16,\"merge\":\"mean\"}",
     "quest page=16",
     256,
     {0.80, 0.70, 0.78},
     0.04,
     {1, 0.5, 0.75},
     {0.9, 0.8},
     {0.95, 0.9},
     9},
    {"quest",
     "quest k=16 page=16",
     "{\"k\":16,\"page\":16,\"merge\":\"mean\"}",
     "quest page=16",
     16,
     {0.15, 0.10, 0.20},
     0.04,
     {0, 0.25, 0},
     {0.4, 0.5},
     {0.6, 0.7},
     12},
    {"quest",
     "quest k=64 page=16",
     "{\"k\":64,\"page\":16,\"merge\":\"mean\"}",
     "quest page=16",
     64,
     {0.36, 0.36, 0.36},
     0.04,
     {0.5, 0.5, 0.25},
     {0.6, 0.7},
     {0.8, 0.75},
     10},
    {"quest",
     "quest k=128 page=16",
     "{\"k\":128,\"page\":16,\"merge\":\"mean\"}",
     "quest page=16",
     128,
     {0.36, 0.36, 0.36},
     0.04,
     {0.75, 0.5, 0.5},
     {0.7, 0.6},
     {0.85, 0.8},
     10},
    {"mac",
     "mac threshold=0.45 axis=steps",
     "{\"threshold\":0.45,\"axis\":\"steps\",\"amend\":256}",
     "mac axis=steps",
     -1,
     {0.9, 0.95, 1.0},
     0,
     {1, 1, 1},
     {0},
     {0},
     8},
    {"mac",
     "mac threshold=-0.5 axis=steps",
     "{\"threshold\":-0.5,\"axis\":\"steps\",\"amend\":256}",
     "mac axis=steps",
     -1,
     {0.5, 0.5, 0.5},
     0,
     {0.5, 1, 0.5},
     {0},
     {0},
     16},
    {"mac",
     "mac threshold=0.45 axis=both",
     "{\"threshold\":0.45,\"axis\":\"both\",\"amend\":256}",
     "mac axis=both",
     -1,
     {0.75, 0.75, 0.75},
     0.05,
     {1, 1, 1},
     {0},
     {0},
     8},
    {"random", "random k=16", "{\"k\":16,\"seed\":0}", "random", 16, {0.2, 0.2, 0.2}, 0, {0, 0, -1}, {0}, {0}, 8},
    {"random",
     "random k=64",
     "{\"k\":64,\"seed\":0}",
     "random",
     64,
     {0.6, 0.6, 0.6},
     0,
     {0.5, 0, 0.5},
     {0},
     {0},
     8},
};
enum { ARMS = sizeof arms / sizeof *arms };

static const double levels[] = {0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0};
enum { LEVELS = sizeof levels / sizeof *levels };
#define EDGE 1e-9 /* so near to a level is on it */

static void fill(small_store *s)
{
    int64_t data[TASKS] = {s->data};
    mb_dataset_row other = {"needles", "niah", "retrieval", "en", "contains", "f", "p", NULL, 32};
    OK(mb_store_dataset(s->store, &other, &data[1], &s->err));
    for (int i = 0; i < ARMS; i++) {
        const arm *a = &arms[i];
        int64_t config;
        mb_config_row row = {
            a->method, "1",     "words", "paper", NULL, a->options, strcmp(a->method, "exact") ? 0 : 8,
            a->k,      a->label};
        OK(mb_store_config(s->store, &row, &config, &s->err));
        for (int j = 0; j < SAMPLES; j++) {
            char key[16];
            snprintf(key, sizeof key, "s%d", j);
            s->data = data[j == 2];
            if (a->score[j] < 0)
                continue;
            mb_sample_row sample = small_row(small_cell(s, config, "quality"), key, a->score[j]);
            sample.work_attend = a->work[j];
            sample.work_select = a->select;
            sample.denoise_forwards = a->forwards;
            OK(mb_store_sample(s->store, &sample, &s->err));
        }
        for (int t = 0; t < TASKS && a->index[t] > 0; t++) { /* task 1 has three times the blocks */
            mb_recall_row recall = {2, 2, t ? 3 : 1, 2, a->index[t], a->mass[t], 0.1, NULL, NULL};
            s->data = data[t];
            mb_sample_row sample = small_row(small_cell(s, config, "recall"), "s0", NAN);
            sample.recalls = &recall;
            sample.recall_count = 1;
            OK(mb_store_sample(s->store, &sample, &s->err));
        }
    }
}

/* ---- the same, worked out here ---- */

typedef struct point {
    const arm *a;
    double work, values[4]; /* score, index recall, mass recall, forwards */
    int n;
} point;

/* task TASKS: over the tasks. False: the configuration lacks a task. */
static bool point_of(const arm *a, int task, point *p)
{
    double score[TASKS] = {0}, work[TASKS] = {0};
    int n[TASKS] = {0}, all = 0;
    for (int j = 0; j < SAMPLES; j++) {
        int t = j == 2;
        if (a->score[j] < 0 || (task < TASKS && t != task))
            continue;
        score[t] += a->score[j];
        work[t] += a->work[j] + a->select;
        n[t]++;
        all++;
    }
    if (task == TASKS ? !n[0] || !n[1] : !n[task])
        return false;
    bool both = task == TASKS;
    *p = (point){.a = a, .n = all};
    p->work = both ? (work[0] / n[0] + work[1] / n[1]) / 2 : work[task] / n[task];
    p->values[0] = both ? (score[0] / n[0] + score[1] / n[1]) / 2 : score[task] / n[task];
    p->values[1] = a->index[0] == 0 ? NAN : both ? (a->index[0] + a->index[1]) / 2 : a->index[task];
    p->values[2] = a->index[0] == 0 ? NAN : both ? (a->mass[0] + a->mass[1]) / 2 : a->mass[task];
    p->values[3] = a->forwards;
    return true;
}

/* Value at a level of work, or false. By hand: the nearest point at or below, and the nearest above; of two points
 * with the same work the later configuration. */
static bool read_off(const char *curve, int task, double level, point *low, point *high, double *share)
{
    bool below = false, above = false;
    for (int i = 0; i < ARMS; i++) {
        point p;
        if (strcmp(arms[i].curve, curve) != 0 || !point_of(&arms[i], task, &p))
            continue;
        if (p.work <= level + EDGE && (!below || p.work >= low->work)) {
            *low = p;
            below = true;
        }
        if (p.work > level + EDGE && (!above || p.work < high->work)) {
            *high = p;
            above = true;
        }
    }
    if (!below || (!above && low->work < level - EDGE))
        return false;
    if (!above)
        *high = *low;
    *share = low->work < level - EDGE ? (level - low->work) / (high->work - low->work) : 0;
    return true;
}

static double number(sqlite3_stmt *s, int column)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL ? NAN : sqlite3_column_double(s, column);
}

static void expect_near(double is, double should, const char *what, const char *curve, double level)
{
    if (!(isnan(is) && isnan(should)) && !(fabs(is - should) < 1e-12))
        fail_msg("%s of %s at %g is %.17g, not %.17g", what, curve, level, is, should);
}

static int expect_curve(small_store *s, const char *curve, int task)
{
    static const char *const what[] = {"score", "index recall", "mass recall", "forwards"};
    static const char *const names[] = {"qa", "needles", "*"};
    sqlite3_stmt *q = NULL;
    int rows = 0;
    assert_int_equal(
        sqlite3_prepare_v2(s->store->db,
                           "SELECT score, index_recall, mass_recall, forwards_per_block, n, config_low, "
                           "config_high, share FROM v_equal_work WHERE curve = ? AND task = ? AND "
                           "work = ?",
                           -1, &q, NULL),
        SQLITE_OK);
    for (int l = 0; l < LEVELS; l++) {
        point low = {0}, high = {0};
        double share = 0;
        bool reached = read_off(curve, task, levels[l], &low, &high, &share);
        sqlite3_reset(q);
        sqlite3_bind_text(q, 1, curve, -1, SQLITE_STATIC);
        sqlite3_bind_text(q, 2, names[task], -1, SQLITE_STATIC);
        sqlite3_bind_double(q, 3, levels[l]);
        int code = sqlite3_step(q);
        if (code != (reached ? SQLITE_ROW : SQLITE_DONE))
            fail_msg("%s, %s at %g: a row is %s", curve, names[task], levels[l], reached ? "missing" : "too many");
        if (!reached)
            continue;
        rows++;
        for (int v = 0; v < 4; v++)
            expect_near(number(q, v),
                        share > 0 ? (1 - share) * low.values[v] + share * high.values[v] : low.values[v], what[v],
                        curve, levels[l]);
        assert_int_equal(sqlite3_column_int(q, 4), share > 0 && high.n < low.n ? high.n : low.n);
        assert_string_equal(sqlite3_column_text(q, 5), low.a->label);
        assert_string_equal(sqlite3_column_text(q, 6), share > 0 ? high.a->label : low.a->label);
        expect_near(number(q, 7), share, "share", curve, levels[l]);
        assert_int_equal(sqlite3_step(q), SQLITE_DONE);
    }
    sqlite3_finalize(q);
    return rows;
}

static void reads_curves_off(void **state)
{
    small_store s = {0};
    (void)state;
    small_path(&s, "equal");
    small_open(&s, 7);
    fill(&s);
    int total = 0;
    for (int task = 0; task <= TASKS; task++)
        for (int i = 0; i < ARMS; i++) {
            bool first = true;
            for (int j = 0; j < i; j++)
                first = first && strcmp(arms[j].curve, arms[i].curve) != 0;
            total += first ? expect_curve(&s, arms[i].curve, task) : 0;
        }
    assert_true(total > 30);
    /* Nothing else is there: neither a level nor a curve that the loops above do not know. */
    char count[32];
    snprintf(count, sizeof count, "%d\n", total);
    assert_string_equal(small_query(s.store, "SELECT count(*) FROM v_equal_work"), count);
    /* A curve of one point stands at its level only; random lacks a task at k = 16 and has no mean there. */
    assert_string_equal(
        small_query(s.store, "SELECT task, work FROM v_equal_work WHERE curve = 'mac axis=both' ORDER BY task"),
        "*,0.8\nneedles,0.8\nqa,0.8\n");
    assert_string_equal(small_query(s.store, "SELECT config FROM v_work WHERE curve = 'random' AND task = '*'"),
                        "random k=64\n");
    assert_string_equal(small_query(s.store, "SELECT DISTINCT curve, dial FROM v_curve ORDER BY 1"),
                        "exact,k\nmac axis=both,threshold\nmac axis=steps,threshold\nquest page=16,k\nrandom,k\n");
    small_close(&s);
    unlink(s.path);
}

/* The report prints the levels that two curves share, over the tasks. */
static void report_prints_common_levels(void **state)
{
    small_store s = {0};
    mb_text out = {0};
    (void)state;
    small_path(&s, "equal-report");
    small_open(&s, 7);
    fill(&s);
    OK(mb_report(s.store, NULL, &(mb_report_options){MB_TABLE_MARKDOWN, 0, true, NULL}, &out, &s.err));
    const char *scores = strstr(out.data, "### score in percent at equal work");
    assert_non_null(scores);
    /* quest, both macs, and exact alone at 1.0; random over the tasks is one point at 0.6 */
    const char *head = strstr(scores, "| method |");
    assert_non_null(head);
    assert_true(strncmp(head, "| method | 0.5 | 0.6 | 0.7 |", 28) == 0);
    /* mac axis=steps at 0.5: ((0.5 + 1) / 2 + 0.5) / 2 = 0.625 */
    assert_non_null(strstr(scores, "| mac axis=steps | 62.5 |"));
    const char *recall = strstr(scores, "### index recall at equal work");
    assert_non_null(recall);
    assert_null(strstr(recall, "| mac axis=steps |"));
    mb_text_free(&out);
    small_close(&s);
    unlink(s.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_curves_off),
        cmocka_unit_test(report_prints_common_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
