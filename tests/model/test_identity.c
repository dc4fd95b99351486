/*
 * test_identity.c - every file of a checkpoint folder that is opened is in the identity that is stored. The kernel
 * says which those are (inotify), so a reader that is added later is met here too: each file that was opened is
 * changed in turn, and one of the three hashes must change with it.
 */
#include "model/model.h"
#include "tests/model/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/inotify.h>

#include <cmocka.h>

enum { FILES_MAX = 32 };

typedef char names[FILES_MAX][64];

static void hashes(const char *folder, char all[3][MB_HASH_CAP])
{
    mb_device *device = NULL;
    mb_model *model = NULL;
    mb_error err = {0};
    const mb_kernels *cpu = mb_kernels_cpu();
    mb_device_options options = {.type = MB_BF16, .threads = 1, .arena_bytes = (size_t)64 << 20};
    mb_model_request request = {.path = folder, .unloaded = true};
    assert_int_equal(cpu->open(&device, &options, &err), MB_OK);
    if (mb_model_open(&model, &request, cpu, device, MB_BF16, &err) != MB_OK)
        fail_msg("%s", err.text);
    mb_model_hashes(model, all[0], all[1], all[2]);
    mb_model_close(model);
    cpu->close(device);
}

/* Names of the files in the folder that opening a model opens; how many. */
static size_t opened(const char *folder, names list)
{
    char all[3][MB_HASH_CAP];
    _Alignas(struct inotify_event) char events[16384];
    size_t count = 0;
    int fd = inotify_init1(IN_NONBLOCK);
    assert_true(fd >= 0 && inotify_add_watch(fd, folder, IN_OPEN) >= 0);
    hashes(folder, all);
    for (ssize_t n; (n = read(fd, events, sizeof events)) > 0;)
        for (char *at = events; at < events + n;) {
            const struct inotify_event *event = (const void *)at;
            size_t i = 0;
            while (i < count && strcmp(list[i], event->len ? event->name : "") != 0)
                i++;
            if (event->len && i == count && count < FILES_MAX)
                snprintf(list[count++], sizeof list[0], "%s", event->name);
            at += sizeof *event + event->len;
        }
    close(fd);
    return count;
}

/* The text of a JSON file stays valid with a blank at its end; of a weight file the last byte is data. */
static void change(const char *folder, const char *name)
{
    char *path = mb_string_format("%s/%s", folder, name), *data = NULL;
    mb_text text = {0};
    mb_error err = {0};
    size_t size = 0;
    assert_int_equal(mb_file_read(path, (size_t)1 << 30, &data, &size, &err), MB_OK);
    mb_text_append(&text, data, size);
    if (strstr(name, ".safetensors") && !strstr(name, ".json"))
        text.data[size - 1] ^= 1;
    else
        mb_text_puts(&text, " ");
    folder_put(folder, name, text.data, text.length);
    mb_text_free(&text);
    free(data);
    free(path);
}

static size_t check_folder(const char *folder, const char *const *expected)
{
    names list;
    char before[3][MB_HASH_CAP], after[3][MB_HASH_CAP];
    size_t count = opened(folder, list);
    for (; *expected; expected++) {
        size_t i = 0;
        while (i < count && strcmp(list[i], *expected) != 0)
            i++;
        if (i == count)
            fail_msg("%s was not opened: the test has lost its object", *expected);
    }
    for (size_t i = 0; i < count; i++) {
        hashes(folder, before);
        change(folder, list[i]);
        hashes(folder, after);
        if (memcmp(before, after, sizeof before) == 0)
            fail_msg("%s is read, and another content has the same identity", list[i]);
    }
    return count;
}

static char *tiny_folder(void)
{
    char *folder = folder_new();
    folder_copy(folder, "config.json", "models/tiny/config.json");
    folder_copy(folder, "tokenizer.json", "models/tiny/tokenizer.json");
    folder_put_text(folder, "generation_config.json", "{\"eos_token_id\": [1, 2]}");
    folder_put_text(folder, "tokenizer_config.json", "{\"model_max_length\": 4096}");
    folder_put_text(folder, "added_tokens.json", "{}");
    folder_put_text(folder, "special_tokens_map.json", "{}");
    folder_put_text(folder, "chat_template.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}");
    return folder;
}

static void every_file_counts(void **state)
{
    (void)state;
    static const char *const expected[] = {
        "config.json",         "generation_config.json", "tokenizer.json",
        "chat_template.jinja", "tokenizer_config.json",  "special_tokens_map.json",
        "model.safetensors",   "added_tokens.json",      NULL};
    char *folder = tiny_folder();
    folder_copy(folder, "model.safetensors", "models/tiny/model.safetensors");
    assert_true(check_folder(folder, expected) >= 8);
    folder_remove(folder);
    free(folder);
}

/* The same weights as a shard behind an index. */
static void an_index_counts(void **state)
{
    (void)state;
    static const char *const expected[] = {"one.safetensors", "model.safetensors.index.json", NULL};
    char *folder = tiny_folder(), *header = NULL;
    mb_text map = {0};
    mb_error err = {0};
    size_t size = 0;
    uint64_t length;
    folder_copy(folder, "one.safetensors", "models/tiny/model.safetensors");
    assert_int_equal(mb_file_read("models/tiny/model.safetensors", (size_t)1 << 30, &header, &size, &err), MB_OK);
    memcpy(&length, header, sizeof length);
    mb_text_puts(&map, "{\"weight_map\": {");
    header[8 + length] = '\0';
    for (char *at = header + 8; (at = strstr(at, "\":{\"dtype")) != NULL; at++) {
        char *name = at;
        while (name[-1] != '"')
            name--;
        mb_text_printf(&map, "%s\"%.*s\": \"one.safetensors\"", strchr(map.data, ':')[3] ? ", " : "",
                       (int)(at - name), name);
    }
    mb_text_puts(&map, "}}");
    folder_put_text(folder, "model.safetensors.index.json", map.data);
    assert_true(check_folder(folder, expected) >= 9);
    mb_text_free(&map);
    free(header);
    folder_remove(folder);
    free(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_file_counts), cmocka_unit_test(an_index_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
