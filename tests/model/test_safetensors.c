/*
 * test_safetensors.c - what a weight file must look like: a table of damaged ones, each refused with MB_E_INPUT
 * and a sentence that names the trouble; shards and their index; a file whose bytes are known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/checkpoint/safetensors.h"
#include "tests/model/folder.h"

/* Length, header, `data` bytes 0, 1, 2, ... in memory of exactly that size, so that ASan sees a step too far. */
static unsigned char *image(const char *header, size_t data, size_t *size)
{
    size_t length = strlen(header);
    *size = 8 + length + data;
    unsigned char *bytes = malloc(*size);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(length >> (8 * i));
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data; i++)
        bytes[8 + length + i] = (unsigned char)i;
    return bytes;
}

static void good_file(void **state)
{
    (void)state;
    size_t size;
    unsigned char *bytes = image("{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[12,16]},"
                                 "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
                                 "\"none\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[12,12]},"
                                 "\"ids\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[16,24]}}   ",
                                 24, &size);
    mb_safetensors table;
    mb_error err = {0};
    assert_int_equal(mb_safetensors_parse(&table, bytes, size, "f", &err), MB_OK);
    assert_int_equal(table.count, 4);
    const mb_tensor *a = mb_safetensors_find(&table, "a"), *ids = mb_safetensors_find(&table, "ids");
    assert_non_null(a);
    assert_int_equal(a->type, MB_BF16);
    assert_int_equal(a->rank, 2);
    assert_int_equal(a->shape[0], 2);
    assert_int_equal(a->shape[1], 3);
    assert_int_equal(a->bytes, 12);
    assert_int_equal(a->data[11], 11);
    assert_int_equal(mb_safetensors_find(&table, "b")->data[0], 12);
    assert_int_equal(mb_safetensors_find(&table, "b")->rank, 0);
    assert_int_equal(mb_safetensors_find(&table, "none")->bytes, 0);
    assert_false(ids->usable);
    assert_null(mb_safetensors_find(&table, "__metadata__"));
    assert_null(mb_safetensors_find(&table, "c"));
    mb_safetensors_free(&table);
    free(bytes);
}

#define T(fields) "{\"t\":{" fields "}}"

static void damaged_files(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *says;
    } cases[] = {
        {"", 0, "no safetensors file"},
        {"{", 0, "no safetensors file"},
        {"{]", 0, "not valid JSON"},
        {"[]", 0, "object"},
        {"{}x", 0, "not valid JSON"},
        {"{} {}", 0, "not valid JSON"},
        {"{\"t\":7}", 0, "needs dtype"},
        {"{\"t\":null}", 0, "needs dtype"},
        {T("\"dtype\":\"F32\",\"shape\":[1]"), 4, "needs dtype"},
        {T("\"dtype\":\"F32\",\"data_offsets\":[0,4]"), 4, "needs dtype"},
        {T("\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]"), 4, "needs dtype"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]"), 4, "needs dtype"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,2,4]"), 4, "needs dtype"},
        {T("\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, "unknown dtype \"F33\""},
        {T("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]"), 4, "whole numbers"},
        {T("\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,6]"), 6, "whole numbers"},
        {T("\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]"), 4, "whole numbers"},
        {T("\"dtype\":\"F32\",\"shape\":[NaN],\"data_offsets\":[0,4]"), 4, "shape must be at most"},
        {T("\"dtype\":\"F32\",\"shape\":[1e999],\"data_offsets\":[0,4]"), 4, "whole numbers"},
        {T("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]"), 4, "at most 8"},
        {T("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,16],\"data_offsets\":[0,4]"), 4, "overflows"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]"), 4, "0 <= begin <= end"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]"), 4, "0 <= begin <= end"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,1e300]"), 4, "0 <= begin <= end"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0.5,4.5]"), 4, "0 <= begin <= end"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]"), 8,
         "spans 8 bytes, its shape and dtype F32 need 4"},
        {T("\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,4]"), 4, "need 8"},
        {T("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"), 7, "incomplete"},
        {T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9007199254740988,9007199254740992]"), 4,
         "incomplete"},
        {T("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"), 9, "damaged"},
        {"{}", 1, "damaged"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, "a and b overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         8, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t size;
        unsigned char *bytes = image(cases[i].header, cases[i].data, &size);
        mb_safetensors table;
        mb_error err = {0};
        int rc = mb_safetensors_parse(&table, bytes, size, "some.safetensors", &err);
        if (rc != MB_E_INPUT || !strstr(err.text, cases[i].says) || !strstr(err.text, "some.safetensors"))
            fail_msg("case %zu: rc %d, \"%s\", expected \"%s\"", i, rc, err.text, cases[i].says);
        assert_null(table.tensors);
        free(bytes);
    }
}

static void damaged_lengths(void **state)
{
    (void)state;
    static const struct {
        unsigned char bytes[12];
        size_t size;
        const char *says;
    } cases[] = {
        {{0}, 0, "at least 8 bytes, this one 0"},
        {{1, 2, 3}, 7, "at least 8 bytes, this one 7"},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'}, 10, "18446744073709551615"},
        {{0, 0, 0, 0, 0, 0, 0, 0x80, '{', '}'}, 10, "no safetensors file"},
        {{200, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, 10, "needs 208 bytes, the file has 10"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_safetensors table;
        mb_error err = {0};
        unsigned char *exact = malloc(cases[i].size + 1);
        memcpy(exact, cases[i].bytes, cases[i].size);
        assert_int_equal(mb_safetensors_parse(&table, exact, cases[i].size, "f", &err), MB_E_INPUT);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu: \"%s\"", i, err.text);
        free(exact);
    }
}

/* Nesting a hundred thousand levels deep is an error, not the end of the stack. */
static void deep_nesting(void **state)
{
    (void)state;
    mb_text header = {0};
    mb_text_puts(&header, "{\"t\":");
    for (int i = 0; i < 100000; i++)
        mb_text_puts(&header, i % 2 ? "[" : "{\"a\":");
    size_t size;
    unsigned char *bytes = image(header.data, 0, &size);
    mb_safetensors table;
    mb_error err = {0};
    assert_int_equal(mb_safetensors_parse(&table, bytes, size, "f", &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "nested too deeply"));
    free(bytes);
    mb_text_free(&header);
}

/* Cutting a good file at every length must fail, whatever was cut. */
static void every_truncation(void **state)
{
    (void)state;
    size_t size;
    unsigned char *bytes = image("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, &size);
    for (size_t cut = 0; cut < size; cut++) {
        unsigned char *part = malloc(cut + 1);
        mb_safetensors table;
        mb_error err = {0};
        memcpy(part, bytes, cut);
        unsigned char *exact = realloc(part, cut ? cut : 1);
        assert_int_equal(mb_safetensors_parse(&table, exact, cut, "f", &err), MB_E_INPUT);
        assert_non_null(strstr(err.text, "incomplete"));
        free(exact);
    }
    free(bytes);
}

/* ---- folders ---- */

#define ONE(name) "{\"" name "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"
#define MAP(total, entries) "{\"metadata\":{\"total_size\":" total "},\"weight_map\":{" entries "}}"

static void put_image(const char *folder, const char *name, const char *header, size_t data)
{
    size_t size;
    unsigned char *bytes = image(header, data, &size);
    folder_put(folder, name, bytes, size);
    free(bytes);
}

static void shards(void **state)
{
    (void)state;
    char *folder = folder_new(), hex[MB_HASH_CAP], other[MB_HASH_CAP];
    mb_error err = {0};
    mb_checkpoint *checkpoint = NULL;
    put_image(folder, "s1.safetensors", ONE("a"), 4);
    put_image(folder, "s2.safetensors", ONE("b"), 4);
    folder_put_text(folder, "model.safetensors.index.json",
                    MAP("8", "\"b\":\"s2.safetensors\",\"a\":\"s1.safetensors\""));
    assert_int_equal(mb_checkpoint_open(&checkpoint, folder, &err), MB_OK);
    assert_non_null(mb_checkpoint_find(checkpoint, "a"));
    assert_non_null(mb_checkpoint_find(checkpoint, "b"));
    assert_null(mb_checkpoint_find(checkpoint, "c"));
    assert_int_equal(mb_checkpoint_find(checkpoint, "b")->data[3], 3);
    assert_non_null(mb_checkpoint_tensor(checkpoint, 1));
    assert_null(mb_checkpoint_tensor(checkpoint, 2));
    assert_int_equal(mb_checkpoint_hash(checkpoint, hex, &err), MB_OK);
    mb_checkpoint_close(checkpoint);
    put_image(folder, "s2.safetensors", ONE("b") " ", 4);
    assert_int_equal(mb_checkpoint_open(&checkpoint, folder, &err), MB_OK);
    assert_int_equal(mb_checkpoint_hash(checkpoint, other, &err), MB_OK);
    assert_string_not_equal(hex, other);
    mb_checkpoint_close(checkpoint);
    folder_remove(folder);
    free(folder);
}

/* Indexes that no loader minds: total_size counts files, a listed tensor is nowhere, a name stands twice (the last
 * place counts, as in Python). */
static void odd_indexes(void **state)
{
    (void)state;
    static const char *const indexes[] = {
        MAP("9000", "\"a\":\"s1.safetensors\",\"c\":\"s1.safetensors\""),
        MAP("\"8\"", "\"a\":\"s1.safetensors\",\"c\":\"s2.safetensors\""),
        MAP("NaN", "\"a\":\"s2.safetensors\",\"a\":\"s1.safetensors\",\"c\":\"s1.safetensors\""),
        "{\"weight_map\":{\"a\":\"s1.safetensors\",\"c\":\"s1.safetensors\"}}"};
    char *folder = folder_new();
    put_image(folder, "s1.safetensors", ONE("a"), 4);
    put_image(folder, "s2.safetensors", ONE("b"), 4);
    for (size_t i = 0; i < sizeof indexes / sizeof indexes[0]; i++) {
        mb_checkpoint *checkpoint = NULL;
        mb_error err = {0};
        folder_put_text(folder, "model.safetensors.index.json", indexes[i]);
        if (mb_checkpoint_open(&checkpoint, folder, &err) != MB_OK)
            fail_msg("index %zu: %s", i, err.text);
        assert_non_null(mb_checkpoint_find(checkpoint, "a"));
        assert_null(mb_checkpoint_find(checkpoint, "c"));
        assert_true(mb_checkpoint_lacks(checkpoint, "c") && !mb_checkpoint_lacks(checkpoint, "a"));
        mb_checkpoint_close(checkpoint);
    }
    folder_remove(folder);
    free(folder);
}

static void damaged_indexes(void **state)
{
    (void)state;
    static const struct {
        const char *index, *says;
    } cases[] = {
        {"", "not valid JSON"},
        {"{}", "weight_map"},
        {"{\"weight_map\":[]}", "weight_map"},
        {"{\"weight_map\":{}}", "names 0 files"},
        {MAP("4", "\"a\":5"), "must be a string"},
        {MAP("4", "\"a\":\"../s1.safetensors\""), "refused"},
        {MAP("4", "\"a\":\"/etc/x.safetensors\""), "refused"},
        {MAP("4", "\"a\":\"sub/s1.safetensors\""), "refused"},
        {MAP("4", "\"a\":\"..\\\\s1.safetensors\""), "refused"},
        {MAP("4", "\"a\":\".safetensors\""), "refused"},
        {MAP("4", "\"a\":\"config.json\""), "refused"},
        {MAP("4", "\"a\":\"\""), "refused"},
        {MAP("4", "\"a\":\"s3.safetensors\""), "s3.safetensors is missing"},
        {MAP("4", "\"a\":\"broken.safetensors\""), "incomplete"},
    };
    char *folder = folder_new();
    put_image(folder, "s1.safetensors", ONE("a"), 4);
    put_image(folder, "broken.safetensors", ONE("a"), 3);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_checkpoint *checkpoint = NULL;
        mb_error err = {0};
        folder_put_text(folder, "model.safetensors.index.json", cases[i].index);
        int rc = mb_checkpoint_open(&checkpoint, folder, &err);
        if (rc != MB_E_INPUT || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: rc %d, \"%s\", expected \"%s\"", i, rc, err.text, cases[i].says);
        assert_null(checkpoint);
    }
    folder_remove(folder);
    free(folder);
}

static void no_weights_at_all(void **state)
{
    (void)state;
    char *folder = folder_new();
    mb_error err = {0};
    mb_checkpoint *checkpoint = NULL;
    assert_int_equal(mb_checkpoint_open(&checkpoint, folder, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "neither model.safetensors nor model.safetensors.index.json"));
    folder_put_text(folder, "model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    assert_int_equal(mb_checkpoint_open(&checkpoint, folder, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "Git LFS pointer"));
    folder_remove(folder);
    free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_file),    cmocka_unit_test(damaged_files),    cmocka_unit_test(damaged_lengths),
        cmocka_unit_test(deep_nesting), cmocka_unit_test(every_truncation), cmocka_unit_test(shards),
        cmocka_unit_test(odd_indexes),  cmocka_unit_test(damaged_indexes),  cmocka_unit_test(no_weights_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
