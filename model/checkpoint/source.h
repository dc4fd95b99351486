/*
 * source.h - the small files of a checkpoint by name: read from its folder, or written from the metadata of a
 * single GGUF file. Who reads config.json, tokenizer.json or a chat template asks here and need not know which.
 * Internal to model/.
 */
#ifndef MB_MODEL_SOURCE_H
#define MB_MODEL_SOURCE_H

#include "model/checkpoint/safetensors.h"

/* Whether the path is one file and no folder. */
bool mb_source_is_file(const char *path);

/* The text of a file of the checkpoint, malloc'ed and NUL-terminated; *text NULL = it has none. Of a GGUF file
 * there are config.json, tokenizer.json and tokenizer_config.json (with the chat template). */
int mb_source_read(const char *path, const char *name, size_t max, char **text, size_t *size, mb_error *err);

/* The weights of a GGUF file under the names of a checkpoint folder. data (the file's bytes) must outlive them. */
int mb_source_tensors(mb_safetensors *table, const unsigned char *data, size_t size, const char *where,
                      mb_error *err);

#endif
