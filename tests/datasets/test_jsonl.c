/*
 * test_jsonl.c - the row reader on good and damaged files: every bad row is told with file and line and the rows
 * after it still come; a JSON array gives the same rows as lines; counting agrees with reading.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "datasets/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];

static int make_path(void **state)
{
    (void)state;
    strcpy(path, "/tmp/mb_jsonl_XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int drop_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void put(const void *bytes, size_t n)
{
    mb_error err = {0};
    if (mb_file_write(path, bytes, n, &err) != MB_OK)
        fail_msg("%s", err.text);
}

/* Reads all rows: 'a' for a good one (by its member "a"), "!N" for a bad one at line N. */
static void rows_are(const char *want)
{
    mb_jsonl *reader = NULL;
    cJSON *row = NULL;
    mb_text have = {0};
    mb_error err = {0};
    int rc;
    int64_t rows = 0;
    mb_text_puts(&have, "");
    assert_int_equal(mb_jsonl_open(&reader, path, &err), MB_OK);
    while ((rc = mb_jsonl_next(reader, &row, &err)) != 0) {
        rows++;
        if (rc == 1) {
            const cJSON *a = mb_json_member(row, "a");
            mb_text_printf(&have, "%s@%lld ", cJSON_IsString(a) ? a->valuestring : "?",
                           (long long)mb_jsonl_line(reader));
            cJSON_Delete(row);
            continue;
        }
        assert_int_equal(rc, MB_E_SAMPLE);
        assert_null(row);
        char place[128];
        snprintf(place, sizeof place, "%s:%lld: ", path, (long long)mb_jsonl_line(reader));
        if (strncmp(err.text, place, strlen(place)) != 0)
            fail_msg("\"%s\" does not begin with \"%s\"", err.text, place);
        assert_true(strlen(err.text) > strlen(place) + 5);
        mb_text_printf(&have, "!%lld ", (long long)mb_jsonl_line(reader));
    }
    assert_int_equal(mb_jsonl_next(reader, &row, &err), 0); /* the end stays the end */
    assert_string_equal(have.data, want);
    assert_int_equal(mb_jsonl_count(path), rows);
    mb_jsonl_close(reader);
    mb_text_free(&have);
}

static void text_gives(const char *text, const char *want)
{
    put(text, strlen(text));
    rows_are(want);
}

static void good_files(void **state)
{
    (void)state;
    text_gives("{\"a\":\"x\"}\n{\"a\":\"y\"}\n", "x@1 y@2 ");
    text_gives("{\"a\":\"x\"}\n{\"a\":\"y\"}", "x@1 y@2 ");
    text_gives("\xEF\xBB\xBF{\"a\":\"x\"}\r\n\r\n  \n{\"a\":\"y\"}\r\n", "x@1 y@4 ");
    text_gives("", "");
    text_gives("\xEF\xBB\xBF", "");
    text_gives("\n\n\n", "");
    text_gives("{\"a\":\"\xF0\x9F\x98\x80\\ud83d\\ude00\"}", "\xF0\x9F\x98\x80\xF0\x9F\x98\x80@1 ");
    text_gives("{\"a\":\"first\",\"a\":\"last\"}", "last@1 "); /* as Python keeps it */
    text_gives("{\"a\":\"\\\\u0000\"}", "\\u0000@1 ");         /* an escaped backslash, no NUL */
}

/* What Python reads and cJSON does not. */
static void python_texts(void **state)
{
    (void)state;
    text_gives("{\"a\":\"x\\u0000y\"}\n{\"a\":\"y\"}\n", "x\xc0\x80y@1 y@2 ");
    text_gives("{\"a\":\"\\uD83d\"}\n{\"a\":\"\\ude00\\ud83d\"}\n", "\xed\xa0\xbd@1 \xed\xb8\x80\xed\xa0\xbd@2 ");
    text_gives("{\"a\":\"\\ud83d\\ude00\\u0000\"}", "\xF0\x9F\x98\x80\xc0\x80@1 ");
    text_gives("{\"n\":NaN,\"i\":[-Infinity,Infinity],\"a\":\"NaN, \\\"Infinity\"}", "NaN, \"Infinity@1 ");
    text_gives("{\"n\":NaNs,\"a\":\"x\"}\n{\"a\":\"\\u00zz\"}\n{\"a\":\"y\"}", "!1 !2 y@3 ");
}

static void bad_rows(void **state)
{
    (void)state;
    text_gives("{\"a\":\"x\"}\n{\"a\":\n{\"a\":\"y\"}\n", "x@1 !2 y@3 ");
    text_gives("{\"a\":\"x\"} trailing\n{\"a\":\"y\"}\n", "!1 y@2 ");
    text_gives("[1]\n", "!1 ");
    text_gives("5\n\"t\"\nnull\n{\"a\":\"y\"}\n", "!1 !2 !3 y@4 ");
    text_gives("{\"a\":\"\xff\"}\n{\"a\":\"y\"}\n", "!1 y@2 ");
    text_gives("{\"a\":\"\xed\xa0\x80\"}\n{\"a\":\"\xc0\x80\"}\n{\"a\":\"y\"}\n", "!1 !2 y@3 ");
    put("{\"a\":\"x\0y\"}\n{\"a\":\"y\"}", 21);
    rows_are("!1 y@2 ");
    put("\xFF\xFE{\0}\0\n\0", 8); /* UTF-16 */
    rows_are("!1 !2 ");
    mb_text deep = {0};
    for (int i = 0; i < 100000; i++)
        mb_text_puts(&deep, "{\"a\":");
    mb_text_puts(&deep, "\n{\"a\":\"y\"}");
    text_gives(deep.data, "!1 y@2 ");
    mb_text_free(&deep);
}

static void arrays(void **state)
{
    (void)state;
    text_gives("[{\"a\":\"x\"},{\"a\":\"y\"}]", "x@1 y@1 ");
    text_gives("\n [\n {\"a\":\n\"x\"},\n {\"a\":\"]},{\"}\n]\n", "x@3 ]},{@5 ");
    text_gives("[]", "");
    text_gives("[\n]", "");
    text_gives("[{\"a\":\"x\"}", "x@1 !1 ");            /* cut off between elements */
    text_gives("[{\"a\":\"x\"},{\"a\":\"y", "x@1 !1 "); /* and inside one */
    text_gives("[{\"a\":\"x\"},\n5,\n{\"a\" \"y\"},\n{\"a\":\"z\\\"}]\"}]", "x@1 !2 !3 z\"}]@4 ");
    text_gives("[5]", "!1 ");
    text_gives("[}", "!1 ");
    text_gives("[5},\n}}},\n{\"a\":\"y\"}]", "!1 !2 y@3 ");
}

/* A row far larger than the read buffer, and the small one after it. */
static void huge_row(void **state)
{
    (void)state;
    mb_text text = {0};
    mb_text_puts(&text, "{\"b\":\"");
    for (int i = 0; i < 500000; i++)
        mb_text_puts(&text, "0123456789\\n");
    mb_text_puts(&text, "\",\"a\":\"big\"}\n{\"a\":\"small\"}\n");
    text_gives(text.data, "big@1 small@2 ");
    mb_text_free(&text);
    text_gives("{\"a\":\"back\"}", "back@1 ");
}

static void no_file(void **state)
{
    mb_jsonl *reader = NULL;
    mb_error err = {0};
    (void)state;
    assert_int_equal(mb_jsonl_open(&reader, "/nonexistent/x.jsonl", &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "/nonexistent/x.jsonl"));
    assert_int_equal(mb_jsonl_open(&reader, "/tmp", &err), MB_E_INPUT);
    assert_null(reader);
    assert_int_equal(mb_jsonl_count("/nonexistent/x.jsonl"), -1);
}

/* A pipe that nobody writes to is refused, not waited for; so are a device and a folder. */
static void no_regular_file(void **state)
{
    char pipe[80];
    const char *const paths[] = {pipe, "/dev/zero", "/tmp"};
    (void)state;
    snprintf(pipe, sizeof pipe, "%s.pipe", path);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    alarm(20);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        mb_jsonl *reader = NULL;
        char *data = NULL;
        size_t size = 0;
        mb_error err = {0};
        assert_int_equal(mb_jsonl_open(&reader, paths[i], &err), MB_E_INPUT);
        assert_non_null(strstr(err.text, paths[i]));
        assert_int_equal(mb_file_read(paths[i], 100, &data, &size, &err), MB_E_INPUT);
        assert_null(reader);
        assert_null(data);
    }
    alarm(0);
    unlink(pipe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files),      cmocka_unit_test(python_texts), cmocka_unit_test(bad_rows),
        cmocka_unit_test(arrays),          cmocka_unit_test(huge_row),     cmocka_unit_test(no_file),
        cmocka_unit_test(no_regular_file),
    };
    return cmocka_run_group_tests(tests, make_path, drop_path);
}
