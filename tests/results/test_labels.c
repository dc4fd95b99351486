/*
 * test_labels.c - labels are data: every printable character of a text appears as itself in the picture, on a
 * terminal no control character does, and nothing that a label says is carried out.
 */
#include "tests/results/small_store.h"

#include "results/figure.h"

static char folder[] = "/tmp/mb-labels-XXXXXX";

/* The picture's text as it stands in the SVG: XML's own signs escaped. */
static void put_xml(mb_text *out, const char *text)
{
    for (; *text; text++)
        mb_text_puts(out, *text == '&' ? "&amp;" : *text == '<' ? "&lt;" : (const char[]){*text, '\0'});
}

static bool in_picture(const char *svg, const char *text)
{
    mb_text wanted = {0};
    put_xml(&wanted, text);
    int times = 0; /* title, caption, stamp, note and the panel's title at least */
    for (const char *at = svg; (at = strstr(at, wanted.data)); at++)
        times++;
    if (times < 5)
        print_error("%d times in the picture: %s\n", times, wanted.data);
    mb_text_free(&wanted);
    return times >= 5;
}

/* A figure in which every kind of text is `label`; *svg receives the picture. */
static void draw(small_store *s, const char *script, const char *label, char **svg)
{
    char data[128], path[256];
    size_t size = 0;
    const char *style = mb_embedded_find("plots/style.gp", &size);
    figure f = {.store = s->store, .folder = folder, .caption = label, .stamp = label, .note = label};
    snprintf(data, sizeof data, "%s/data", folder);
    OK(mb_folder_make(data, &s->err));
    snprintf(path, sizeof path, "%s/style.gp", data);
    OK(mb_file_write(path, style, size, &s->err));
    figure_begin(&f, script, "", label);
    figure_panel(&f, label);
    figure_series_begin(&f, label, 1, 1, true);
    for (int i = 1; i < 3; i++) {
        figure_point(&f, i, i, NAN, NAN);
        figure_x_tic(&f, i, label);
        figure_y_tic(&f, i, label);
    }
    if (figure_end(&f, &s->err) != MB_OK)
        fail_msg("%s", s->err.text);
    snprintf(path, sizeof path, "%s/%s.svg", folder, script);
    OK(mb_file_read(path, 1 << 24, svg, &size, &s->err));
    figure_free(&f);
}

static void draws_every_character(void **state)
{
    (void)state;
    static const char *const scripts[] = {"accuracy_budget", "niah", "crossover"};
    char all[128], hit[64], commands[512];
    small_store s = {0};
    char *svg = NULL;
    small_path(&s, "labels");
    small_open(&s, 7);
    for (int c = 0x21; c < 0x7f; c++)
        all[c - 0x21] = (char)c;
    all[0x7f - 0x21] = '\0';
    snprintf(hit, sizeof hit, "%s/data/hit", folder);
    snprintf(
        commands, sizeof commands,
        "`touch hit` \"`touch hit`\" '`touch hit`' $(touch hit) '; system('touch hit') #'.system('touch hit').' "
        "@hit \"; !touch hit");
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        draw(&s, scripts[i], all, &svg);
        assert_true(in_picture(svg, all));
        free(svg);
        draw(&s, scripts[i], "a''b'''c''''", &svg);
        assert_true(in_picture(svg, "a''b'''c''''"));
        free(svg);
        draw(&s, scripts[i], commands, &svg);
        assert_true(in_picture(svg, commands));
        free(svg);
        assert_false(mb_file_exists(hit));
        draw(&s, scripts[i], "a\nset output 'data/hit'\n1 2 3 4\n\n\n\x1b[31mb\x7f\xc2\x9b", &svg);
        assert_true(in_picture(svg, "a\\x0aset output 'data/hit'\\x0a1 2 3 4\\x0a\\x0a\\x0a\\x1b[31mb\\x7f\\x9b"));
        assert_null(strchr(svg, 0x1b));
        free(svg);
        assert_false(mb_file_exists(hit));
    }
    small_close(&s);
    unlink(s.path);
}

static void prints_no_control_character(void **state)
{
    (void)state;
    small_store s = {0};
    mb_text out = {0};
    small_path(&s, "control");
    small_open(&s, 7);
    OK(mb_table_query(s.store, "SELECT 'a' || char(27) || '[2J' || char(127) || char(155) || 'b' AS x",
                      MB_TABLE_TERMINAL, 0, &out, &s.err));
    for (const char *p = out.data; *p; p++)
        assert_true(*p == '\n' || ((unsigned char)*p >= 0x20 && *p != 0x7f));
    assert_null(strstr(out.data, "\xc2\x9b"));
    assert_non_null(strstr(out.data, "[2J"));
    mb_text_free(&out);
    small_close(&s);
    unlink(s.path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(draws_every_character),
                                       cmocka_unit_test(prints_no_control_character)};
    char command[64];
    if (!mkdtemp(folder))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return failed || system(command) != 0;
}
