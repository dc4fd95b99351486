/*
 * source.c - a checkpoint's small files by name, out of a folder or out of one GGUF file.
 *
 * A GGUF file is mapped and parsed anew for each text: three times when a model is opened, milliseconds each, and
 * nobody has to keep it open.
 */
#include "model/checkpoint/source.h"

#include "model/checkpoint/gguf_model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool mb_source_is_file(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

static const struct writer {
    const char *name;
    int (*write)(const mb_gguf *gguf, mb_text *json, mb_error *err);
} writers[] = {
    {"config.json", mb_gguf_write_config},
    {"tokenizer.json", mb_gguf_write_tokenizer},
    {"tokenizer_config.json", mb_gguf_write_tokenizer_config},
};

static int write_text(const struct writer *writer, const char *path, char **text, size_t *size, mb_error *err)
{
    const unsigned char *data = NULL;
    size_t bytes = 0;
    mb_gguf gguf = {0};
    mb_text json = {0};
    int rc = mb_file_map(path, &data, &bytes, err);
    if (rc != MB_OK)
        return rc;
    rc = mb_gguf_parse(&gguf, data, bytes, path, err);
    if (rc == MB_OK)
        rc = writer->write(&gguf, &json, err);
    *size = json.length;
    if (rc == MB_OK && !(*text = mb_text_take(&json)))
        rc = mb_no_memory(err, "%s of %s", writer->name, path);
    mb_text_free(&json);
    mb_gguf_free(&gguf);
    mb_file_unmap(data, bytes);
    return rc;
}

int mb_source_read(const char *path, const char *name, size_t max, char **text, size_t *size, mb_error *err)
{
    *text = NULL;
    if (mb_source_is_file(path)) {
        for (size_t i = 0; i < sizeof writers / sizeof writers[0]; i++)
            if (strcmp(writers[i].name, name) == 0)
                return write_text(&writers[i], path, text, size, err);
        return MB_OK;
    }
    char *file = mb_string_format("%s/%s", path, name);
    if (!file)
        return mb_no_memory(err, "reading %s/%s", path, name);
    int rc = mb_file_exists(file) ? mb_file_read(file, max, text, size, err) : MB_OK;
    free(file);
    return rc;
}

int mb_source_tensors(mb_safetensors *table, const unsigned char *data, size_t size, const char *where,
                      mb_error *err)
{
    mb_gguf gguf = {0};
    *table = (mb_safetensors){0};
    int rc = mb_gguf_parse(&gguf, data, size, where, err);
    if (rc == MB_OK)
        rc = mb_gguf_rename(&gguf, err);
    if (rc == MB_OK) { /* the table owns them now */
        *table = (mb_safetensors){gguf.tensors, gguf.tensor_count};
        gguf.tensors = NULL;
        gguf.tensor_count = 0;
    }
    mb_gguf_free(&gguf);
    return rc;
}
