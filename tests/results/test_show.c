/*
 * test_show.c - a recorded sample: what is stored comes back, a map of positions says which keys were selected,
 * the reference answer is found in the prompt, and differences of answers are marked.
 */
#include "tests/results/small_store.h"

#include "results/paper.h"
#include "results/show.h"

/* Prompt "ab needle cd" of 6 tokens; two KV heads; pages of one key. */
static const char prompt[] = "ab needle cd";
static const unsigned char token_bytes[] = {2, 1, 3, 3, 1, 2};
/* step 1, layer 0: head 0 has keys 2 and 3, head 1 all; layer 1: both key 5 */
static const unsigned char pages_0[] = {3, 2, 1, 0}, pages_1[] = {2, 5, 2, 5};

static int64_t store_recorded(small_store *s)
{
    mb_step_row steps[] = {{0, 1, 16, 6, "[[6,\"x\"],[7,\"\\u001b[2J\"]]"}, {0, 2, 14, 6, "[[8,\"y\"]]"}};
    mb_selection_row selections[] = {{0, 0, 1, 1, 6, 2, pages_0, sizeof pages_0},
                                     {0, 1, 1, 1, 6, 2, pages_1, sizeof pages_1},
                                     {0, 0, 2, 1, 6, 2, NULL, 0}}; /* as at step 1 */
    mb_record_row record = {prompt, token_bytes, sizeof token_bytes, steps, 2, selections, 3};
    int64_t cell = small_cell(s, small_config(s, "exact", 8, -1), "quality");
    mb_sample_row row = small_row(cell, "k", 1);
    row.prediction = "the needle is here";
    row.answers_json = "[\"needle\"]";
    OK(mb_store_sample(s->store, &row, &s->err));
    cell = small_cell(s, small_config(s, "m", 0, 64), "quality");
    row = small_row(cell, "k", 0);
    row.prediction = "the hay is here, too";
    row.answers_json = "[\"needle\"]";
    row.record = &record;
    OK(mb_store_sample(s->store, &row, &s->err));
    return cell;
}

static void open_recorded(small_store *s, const char *name)
{
    memset(s, 0, sizeof *s);
    small_path(s, name);
    small_open(s, 7);
    store_recorded(s);
}

static void end(small_store *s)
{
    small_close(s);
    unlink(s->path);
}

static void stores_what_was_recorded(void **state)
{
    small_store s;
    (void)state;
    open_recorded(&s, "record");
    assert_string_equal(
        small_query(s.store, "SELECT prompt, hex(token_bytes) FROM v_record WHERE config = 'm k=64'"),
        "ab needle cd,020103030102\n");
    assert_string_equal(
        small_query(s.store, "SELECT layer, step, hex(pages) FROM v_selection ORDER BY layer, step"),
        "0,1,03020100\n0,2,03020100\n1,1,02050205\n");
    assert_string_equal(small_query(s.store, "SELECT count(*) FROM selection WHERE pages IS NULL"), "1\n");
    assert_string_equal(small_query(s.store, "SELECT step, json_array_length(written) FROM v_trace ORDER BY i"),
                        "1,2\n2,1\n");
    end(&s);
}

static void maps_positions(void **state)
{
    small_store s;
    position_map map;
    (void)state;
    open_recorded(&s, "maps");
    int64_t sample = atoll(small_query(s.store, "SELECT DISTINCT sample_id FROM v_selection"));
    OK(show_map_load(s.store, sample, MAP_BY_LAYER, 3, 100, &map, &s.err));
    assert_int_equal(map.positions, 6);
    assert_int_equal(map.columns, 6);
    /* layer 0, both steps alike: head 1 has every key, head 0 keys 2 and 3 */
    static const double layer_0[] = {0.5, 0.5, 1, 1, 0.5, 0.5}, layer_1[] = {0, 0, 0, 0, 0, 1};
    for (size_t c = 0; c < 6; c++) {
        assert_float_equal(map.values[c], layer_0[c], 1e-12);
        assert_float_equal(map.values[6 + c], layer_1[c], 1e-12);
    }
    assert_float_equal(map.weight[2], 0, 0); /* it never ran sparse */
    show_map_free(&map);
    OK(show_map_load(s.store, sample, MAP_BY_STEP, 2, 3, &map, &s.err)); /* two keys a column */
    static const double step_1[] = {0.25, 0.5, 0.5};
    for (size_t c = 0; c < 3; c++)
        assert_float_equal(map.values[c], step_1[c], 1e-12);
    show_map_free(&map);
    OK(mb_store_close(s.store, &s.err));
    s.store = NULL;
    sqlite3 *db = NULL; /* a blob that ends within a number */
    assert_int_equal(sqlite3_open(s.path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE selection SET pages = x'0382' WHERE layer = 1", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    small_open(&s, 7);
    assert_int_equal(show_map_load(s.store, sample, MAP_BY_LAYER, 3, 6, &map, &s.err), MB_E_INPUT);
    show_map_free(&map);
    end(&s);
}

static char *show(small_store *s, const char *item, const char *method, mb_table_format format, int code)
{
    mb_text out = {0};
    mb_show_request request = {NULL, item, method, NULL};
    assert_int_equal(
        mb_show(s->store, &request, &(mb_report_options){.format = format, .full = true}, &out, &s->err), code);
    return mb_text_take(&out);
}

static void shows_an_item(void **state)
{
    static const char *const words[] = {"6 tokens",
                                        "references: [\"needle\"]",
                                        "ab \xe2\x96\xb6needle\xe2\x97\x80 cd",
                                        "the [-needle-]{+hay+} is here{+, too+}",
                                        "block 0 step 1, 16 masked: 6=x 7=\\x1b[2J",
                                        "layer  0 ",
                                        "layer  2 reads all of the prefix",
                                        "step   2 "};
    small_store s;
    (void)state;
    open_recorded(&s, "show");
    char *text = show(&s, "k", NULL, MB_TABLE_TERMINAL, MB_OK);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(text, words[i]))
            fail_msg("show does not say \"%s\":\n%s", words[i], text);
    free(text);
    text = show(&s, "qa:k", "m", MB_TABLE_HTML, MB_OK);
    assert_non_null(strstr(text, "<pre>"));
    assert_null(strchr(text, '\033'));
    free(text);
    free(show(&s, "nowhere", NULL, MB_TABLE_TERMINAL, MB_E_INPUT));
    assert_non_null(strstr(s.err.text, "it has qa:k"));
    free(show(&s, "k", "nobody", MB_TABLE_TERMINAL, MB_E_INPUT));
    free(show(&s, "k", NULL, MB_TABLE_CSV, MB_E_INPUT));
    end(&s);
}

static void marks_words(void **state)
{
    static const char *const cases[][3] = {
        {"", "", ""},
        {"a b", "a b", "a b"},
        {"a b c", "a c", "a [-b -]c"},
        {"a", "b", "[-a-]{+b+}"},
        {"\xe4\xb8\xad\xe6\x96\x87", "\xe4\xb8\xad\xe5\x9b\xbd", "\xe4\xb8\xad[-\xe6\x96\x87-]{+\xe5\x9b\xbd+}"},
        {"x", "", "[-x-]"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mb_text out = {0};
        show_difference(cases[i][0], cases[i][1], false, &out);
        assert_string_equal(out.data ? out.data : "", cases[i][2]);
        mb_text_free(&out);
    }
}

/* A terminal obeys none of it but the colours that mark differences, and a name is no line of its own. */
static void spells_control_characters(void **state)
{
    mb_text out = {0};
    (void)state;
    paper p = {.format = MB_TABLE_TERMINAL, .width = 80, .out = &out, .colour = true};
    paper_begin(&p, "k\033[2J\nl");
    paper_section(&p, "s\xc2\x9b");
    paper_line(&p, PAPER_PLAIN, "%s", "m\r\033]0;x");
    paper_note(&p, "%s\nnext", "n\a");
    paper_text(&p, "a\033[1;33mb\033[0m \033[2J\033[31\xc2\x9b\tc\nd");
    assert_string_equal(out.data, "k\\x1b[2J\\x0al\n\ns\\x9b\n\nm\\x0d\\x1b]0;x\n\nn\\x07\nnext\n"
                                  "a\033[1;33mb\033[0m \\x1b[2J\\x1b[31\\x9b\tc\nd\n");
    mb_text_clear(&out);
    p.colour = false;
    paper_text(&p, "\033[31mx");
    assert_string_equal(out.data, "\\x1b[31mx\n");
    mb_text_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stores_what_was_recorded),
        cmocka_unit_test(maps_positions),
        cmocka_unit_test(shows_an_item),
        cmocka_unit_test(marks_words),
        cmocka_unit_test(spells_control_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
