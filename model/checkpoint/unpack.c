/*
 * unpack.c - a GGUF file as a checkpoint folder on disk: the texts that source.h makes of its metadata, and
 * model.safetensors with every number decoded.
 *
 * Tensors are written one after the other in the order of their names, through a temporary file: the same file
 * gives the same folder, byte for byte, on every machine.
 */
#include "model/checkpoint/quant.h"
#include "model/checkpoint/source.h"
#include "model/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)1 << 18) /* numbers at a time */
#define TEXT_MAX ((size_t)256 << 20)

static size_t elements_of(const mb_tensor *tensor)
{
    size_t n = 1;
    for (int32_t i = 0; i < tensor->rank; i++)
        n *= (size_t)tensor->shape[i];
    return n;
}

static const char *type_name(mb_type type, const char *bf16, const char *f16, const char *f32)
{
    return type == MB_BF16 ? bf16 : type == MB_F16 ? f16 : f32;
}

static void put_header(mb_text *header, const mb_checkpoint *checkpoint, mb_type type)
{
    const mb_tensor *tensor;
    size_t offset = 0;
    mb_text_puts(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; (tensor = mb_checkpoint_tensor(checkpoint, i)) != NULL; i++) {
        const size_t bytes = elements_of(tensor) * mb_type_size(type);
        mb_text_puts(header, ",\"");
        mb_text_json(header, tensor->name);
        mb_text_printf(header, "\":{\"dtype\":\"%s\",\"shape\":[", type_name(type, "BF16", "F16", "F32"));
        for (int32_t d = 0; d < tensor->rank; d++)
            mb_text_printf(header, "%s%lld", d ? "," : "", (long long)tensor->shape[d]);
        mb_text_printf(header, "],\"data_offsets\":[%zu,%zu]}", offset, offset + bytes);
        offset += bytes;
    }
    mb_text_puts(header, "}");
    while (!header->failed && header->length % 8)
        mb_text_puts(header, " ");
}

/* False: errno says why. */
static bool put_tensors(FILE *file, const mb_checkpoint *checkpoint, mb_type type, void *chunk)
{
    const mb_tensor *tensor;
    for (size_t i = 0; (tensor = mb_checkpoint_tensor(checkpoint, i)) != NULL; i++) {
        const size_t n = elements_of(tensor);
        for (size_t done = 0; done < n; done += CHUNK) {
            const size_t count = n - done < CHUNK ? n - done : CHUNK;
            mb_tensor_read(tensor, done, count, chunk, type);
            if (fwrite(chunk, mb_type_size(type), count, file) != count)
                return false;
        }
    }
    return true;
}

static int write_weights(const mb_checkpoint *checkpoint, const char *folder, mb_type type, mb_error *err)
{
    char *path = mb_string_format("%s/model.safetensors", folder);
    char *partial = mb_string_format("%s/model.safetensors.partial", folder);
    void *chunk = malloc(CHUNK * sizeof(float));
    unsigned char length[8];
    mb_text header = {0};
    FILE *file = NULL;
    int rc = MB_OK;
    put_header(&header, checkpoint, type);
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header.length >> (8 * i));
    if (!path || !partial || !chunk || header.failed) {
        rc = mb_no_memory(err, "writing %s", folder);
        goto out;
    }
    file = fopen(partial, "wb");
    bool ok = file && fwrite(length, sizeof length, 1, file) == 1 &&
              fwrite(header.data, header.length, 1, file) == 1 && put_tensors(file, checkpoint, type, chunk);
    if (file && fclose(file) != 0)
        ok = false;
    if (!ok || rename(partial, path) != 0) {
        rc = mb_fail(err, MB_E_SYSTEM, "cannot write %s: %s", path, strerror(errno));
        remove(partial);
    }
out:
    mb_text_free(&header);
    free(chunk);
    free(partial);
    free(path);
    return rc;
}

/* One of the texts; config.json says the type of the numbers as well. */
static int write_text(const char *path, const char *name, const char *folder, mb_type type, mb_error *err)
{
    static const char end[] = "\n}\n";
    char *text = NULL, *to = mb_string_format("%s/%s", folder, name);
    size_t size = 0;
    mb_text out = {0};
    int rc =
        to ? mb_source_read(path, name, TEXT_MAX, &text, &size, err) : mb_no_memory(err, "writing %s", folder);
    if (rc == MB_OK) {
        const size_t tail = strlen(end);
        mb_text_append(&out, text, size > tail ? size - tail : 0);
        if (strcmp(name, "config.json") == 0)
            mb_text_printf(&out, ",\n  \"dtype\": \"%s\"", type_name(type, "bfloat16", "float16", "float32"));
        mb_text_puts(&out, end);
        rc = out.failed ? mb_no_memory(err, "writing %s", to) : mb_file_write(to, out.data, out.length, err);
    }
    mb_text_free(&out);
    free(text);
    free(to);
    return rc;
}

int mb_model_unpack(const char *file, const char *folder, mb_type type, mb_error *err)
{
    static const char *const texts[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
    mb_checkpoint *checkpoint = NULL;
    if (!mb_source_is_file(file))
        return mb_fail(err, MB_E_INPUT, "%s is no file: a GGUF file is unpacked", file);
    int rc = mb_checkpoint_open(&checkpoint, file, err);
    if (rc == MB_OK)
        rc = mb_folder_make(folder, err);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && rc == MB_OK; i++)
        rc = write_text(file, texts[i], folder, type, err);
    if (rc == MB_OK)
        rc = write_weights(checkpoint, folder, type, err);
    mb_checkpoint_close(checkpoint);
    return rc;
}
