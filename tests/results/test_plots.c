/*
 * test_plots.c - every figure of a full store is drawn in both formats without a word from gnuplot; hostile names,
 * empty stores, failed gates and a missing gnuplot. With two arguments, DB FOLDER, the program writes the full
 * store (unless it is there) and draws it: check_plots.sh and people who change a script use that.
 */
#include "tests/results/small_store.h"

#include "results/figure.h"

#include <glob.h>

#include "tests/results/fake_store.h"

static char root[128];

static int make_root(void **state)
{
    mb_error err = {0};
    const char *folder = getenv("TMPDIR");
    (void)state;
    snprintf(root, sizeof root, "%s/mb-plots-%ld", folder ? folder : "/tmp", (long)getpid());
    return mb_folder_make(root, &err);
}

static int remove_root(void **state)
{
    char command[256];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return getenv("KEEP") ? 0 : system(command);
}

static bool have_gnuplot(void)
{
    return system("command -v gnuplot >/dev/null 2>&1") == 0;
}

static int count_files(const char *pattern)
{
    char path[256];
    glob_t found;
    snprintf(path, sizeof path, "%s/%s", root, pattern);
    int n = glob(path, 0, NULL, &found) == 0 ? (int)found.gl_pathc : 0;
    globfree(&found);
    return n;
}

static char *read_text(const char *name)
{
    char path[256], *data = NULL;
    mb_error err = {0};
    size_t size = 0;
    snprintf(path, sizeof path, "%s/%s", root, name);
    OK(mb_file_read(path, 1 << 24, &data, &size, &err));
    return data;
}

static int draw(mb_store *store, const char *folder, int *drawn, mb_error *err)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, folder);
    return mb_plot_all(store, NULL, path, drawn, err);
}

static void draws_every_figure(void **state)
{
    static const char *const figures[] = {
        "accuracy_budget",
        "accuracy_budget-fake-1b-threshold_0.9",
        "accuracy_work",
        "recall_layer",
        "recall_step",
        "recall_budget",
        "niah-mage",
        "niah-window",
        "forwards",
        "step_time",
        "latency_context",
        "speedup",
        "breakdown",
        "tpob_steps",
        "break_even",
        "crossover",
        "memory",
        "pareto",
        "counter_grid-mage-hit_rate",
    };
    char path[256], name[128];
    mb_error err = {0};
    mb_store *store = NULL;
    int drawn = 0;
    (void)state;
    if (!have_gnuplot())
        skip();
    snprintf(path, sizeof path, "%s/full.db", root);
    OK(fake_store(path, 2));
    OK(mb_store_open(&store, path, MB_STORE_READ, &err));
    if (draw(store, "full", &drawn, &err) != MB_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        snprintf(name, sizeof name, "full/fake/%s.png", figures[i]);
        char *png = read_text(name);
        assert_memory_equal(png, "\x89PNG\r\n\x1a\n", 8);
        free(png);
        snprintf(name, sizeof name, "full/fake/%s.svg", figures[i]);
        char *svg = read_text(name);
        assert_non_null(strstr(svg, "</svg>"));
        assert_non_null(strstr(svg, "model fake-1b")); /* the caption */
        free(svg);
    }
    assert_int_equal(count_files("full/fake/*.png"), drawn);
    assert_int_equal(count_files("full/fake/*.svg"), drawn);
    assert_int_equal(count_files("full/fake/data/*.dat"), drawn);
    assert_int_equal(count_files("full/fake/data/*.log"), 0);
    /* Oracles are in accuracy figures and in no speed figure; a skipped method still has its colour. */
    char *text = read_text("full/fake/data/speedup.dat");
    assert_null(strstr(text, "oracle"));
    assert_non_null(strstr(text, "mage"));
    free(text);
    text = read_text("full/fake/data/accuracy_work.dat");
    assert_non_null(strstr(text, "oracle"));
    free(text);
    /* exact, then the others by name with their lines of plots/methods.txt; oracles end the legend */
    text = read_text("full/fake/data/accuracy_work.vars");
    assert_non_null(strstr(text, "'exact'; key_style[1] = 0;"));
    assert_non_null(strstr(text, "'mage'; key_style[2] = 1;"));
    assert_non_null(strstr(text, "'quest'; key_style[3] = 2;"));
    free(text);
    /* a method of somebody's own: the same style in every store, and none of ours */
    assert_int_equal(figure_style(store, "somebodys"), figure_style(store, "somebodys"));
    assert_true(figure_style(store, "somebodys") > figure_style(store, "rocketkv"));
    for (char other[] = "a"; other[0] <= 'z';
         other[0]++) /* nor in a colour of mage, quest, tidal, ... (style.gp) */
        assert_true((figure_style(store, other) - 1) % 15 >= 8);
    /* an index of the run's pictures, and one of the folder's runs */
    text = read_text("full/fake/index.html");
    assert_non_null(strstr(text, "src=\"speedup.svg\""));
    free(text);
    text = read_text("full/index.html");
    assert_non_null(strstr(text, "href=\"fake/index.html\""));
    free(text);
    mb_store_close(store, NULL);
}

/* What labels may hold, and gnuplot takes as markup, quotes or formats. */
static void draws_hostile_names(void **state)
{
    small_store s = {0};
    int drawn = 0;
    int64_t config = 0;
    (void)state;
    if (!have_gnuplot())
        skip();
    small_path(&s, "hostile");
    small_open(&s, 7);
    small_sample(&s, small_cell(&s, small_config(&s, "plain", 8, -1), "quality"), "a", 1);
    for (int k = 1; k <= 2; k++) {
        char label[64];
        snprintf(label, sizeof label, "it's_{a}^%%d \"x\" \\n k=%d", 100 * k);
        mb_config_row row = {"it's", "1", "", "", NULL, "{}", 0, 100 * k, label};
        OK(mb_store_config(s.store, &row, &config, &s.err));
        mb_sample_row sample = small_row(small_cell(&s, config, "quality"), "a", 0.25 * k);
        sample.context = 512;
        sample.depth = 50;
        OK(mb_store_sample(s.store, &sample, &s.err));
        mb_latency_row time = {.phase = "later_step",
                               .context = 64,
                               .batch = 1,
                               .steps = 4,
                               .us = 10.0 * k,
                               .kept = true,
                               .throttle = -1,
                               .temperature = NAN,
                               .power = NAN,
                               .other_processes = -1};
        OK(mb_store_latency(s.store, small_cell(&s, config, "latency"), &time, 1, &s.err));
    }
    OK(mb_store_gate(s.store, s.run, "some gate", "fail", "because", &s.err));
    if (draw(s.store, "hostile's folder", &drawn, &s.err) != MB_OK)
        fail_msg("%s", s.err.text);
    assert_true(drawn >= 4); /* two accuracies, needles, step time */
    assert_int_equal(count_files("hostile's folder/small/data/*.log"), 0);
    char *svg = read_text("hostile's folder/small/accuracy_work.svg");
    assert_non_null(strstr(svg, "GATE FAILED: some gate"));
    free(svg);
    small_close(&s);
    unlink(s.path);
}

/* An option that all methods have stands once, under the figure; one that tells two apart stays in the legend. */
static void says_common_options_once(void **state)
{
    static const mb_config_row rows[] = {
        {"mage", "1", "", "", NULL, "{}", 0, 8, "mage k=8 dense_layers=0 smooth=3"},
        {"mage", "1", "", "", NULL, "{\"smooth\": 5}", 0, 8, "mage k=8 dense_layers=0 smooth=5"},
        {"quest", "1", "", "", NULL, "{}", 0, 8, "quest k=8 dense_layers=0"},
    };
    small_store s = {0};
    int drawn = 0;
    int64_t config = 0;
    (void)state;
    if (!have_gnuplot())
        skip();
    small_path(&s, "common");
    small_open(&s, 7);
    small_sample(&s, small_cell(&s, small_config(&s, "exact", 8, -1), "quality"), "a", 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        OK(mb_store_config(s.store, &rows[i], &config, &s.err));
        small_sample(&s, small_cell(&s, config, "quality"), "a", 0.25 * (double)i);
    }
    if (draw(s.store, "common", &drawn, &s.err) != MB_OK)
        fail_msg("%s", s.err.text);
    char *text = read_text("common/small/data/accuracy_budget.vars");
    assert_non_null(strstr(text, "'mage smooth=3'; key_style[2] = 1;"));
    assert_non_null(strstr(text, "'mage smooth=5'; key_style[3] = 1;"));
    assert_non_null(strstr(text, "'quest'; key_style[4] = 2;"));
    free(text);
    text = read_text("common/small/accuracy_budget.svg");
    assert_non_null(strstr(text, "all methods: dense_layers=0"));
    free(text);
    small_close(&s);
    unlink(s.path);
}

static void draws_nothing_of_nothing(void **state)
{
    small_store s = {0};
    int drawn = -1;
    (void)state;
    small_path(&s, "nothing");
    small_open(&s, 7);
    OK(draw(s.store, "nothing", &drawn, &s.err));
    assert_int_equal(drawn, 0);
    assert_int_equal(count_files("nothing/small/*.png"), 0);
    small_close(&s);
    unlink(s.path);
}

static void says_that_gnuplot_is_missing(void **state)
{
    small_store s = {0};
    int drawn = -1;
    char path[4096];
    (void)state;
    snprintf(path, sizeof path, "%s", getenv("PATH") ? getenv("PATH") : "");
    small_path(&s, "missing");
    small_open(&s, 7);
    small_sample(&s, small_cell(&s, small_config(&s, "plain", 8, -1), "quality"), "a", 1);
    setenv("PATH", "/nonexistent", 1);
    int rc = draw(s.store, "missing", &drawn, &s.err);
    setenv("PATH", path, 1);
    assert_int_equal(rc, MB_E_SYSTEM);
    assert_int_equal(drawn, 0);
    assert_non_null(strstr(s.err.text, "gnuplot-nox"));
    small_close(&s);
    unlink(s.path);
}

static int draw_for_people(const char *database, const char *folder)
{
    mb_error err = {0};
    mb_store *store = NULL;
    int drawn = 0;
    if (!mb_file_exists(database) && fake_store(database, 8) != MB_OK)
        return 1;
    int rc = mb_store_open(&store, database, MB_STORE_READ, &err);
    if (rc == MB_OK)
        rc = mb_plot_all(store, NULL, folder, &drawn, &err);
    mb_store_close(store, NULL);
    printf("%s%s%d figures\n", err.text, *err.text ? "\n" : "", drawn);
    return rc != MB_OK;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_every_figure),           cmocka_unit_test(draws_hostile_names),
        cmocka_unit_test(says_common_options_once),     cmocka_unit_test(draws_nothing_of_nothing),
        cmocka_unit_test(says_that_gnuplot_is_missing),
    };
    if (argc == 3)
        return draw_for_people(argv[1], argv[2]);
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
