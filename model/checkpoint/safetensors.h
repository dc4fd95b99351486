/*
 * safetensors.h - the weight files of a checkpoint folder: one model.safetensors, or shards named by
 * model.safetensors.index.json. Files are mapped, validated once, and tensors are then found by name.
 *
 * Invariant after a successful open: every tensor's shape, type and byte span agree, spans lie inside their file
 * and do not overlap. Data is little-endian and NOT aligned: read it with memcpy.
 */
#ifndef MB_MODEL_SAFETENSORS_H
#define MB_MODEL_SAFETENSORS_H

#include "base/base.h"
#include "kernels/kernels.h"

#define MB_TENSOR_RANK_MAX 8

struct mb_quant;
typedef struct mb_tensor {
    const char *name; /* owned by the file's table */
    char dtype[16];   /* as written: "BF16" ... */
    bool usable;      /* mb_tensor_read() (quant.h) reads it: type is set */
    mb_type type;
    int32_t rank;
    int64_t shape[MB_TENSOR_RANK_MAX];
    const unsigned char *data; /* into the mapped file */
    size_t bytes;
    /* GGUF files only. quant: the numbers lie in blocks. interleaved: the rows are so many heads, each with its
     * two halves taken in turn. */
    const struct mb_quant *quant;
    int32_t interleaved;
} mb_tensor;

/* The tensors of one file, sorted by name. */
typedef struct mb_safetensors {
    mb_tensor *tensors;
    size_t count;
} mb_safetensors;

/* Parses the image of one file; `where` names it in errors. data must outlive the table. */
int mb_safetensors_parse(mb_safetensors *table, const unsigned char *data, size_t size, const char *where,
                         mb_error *err);
void mb_safetensors_free(mb_safetensors *table);
const mb_tensor *mb_safetensors_find(const mb_safetensors *table, const char *name); /* NULL = none */

/* All weight files of a folder, or a GGUF file. */
typedef struct mb_checkpoint mb_checkpoint;
int mb_checkpoint_open(mb_checkpoint **checkpoint, const char *folder, mb_error *err);
void mb_checkpoint_close(mb_checkpoint *checkpoint);
const mb_tensor *mb_checkpoint_find(const mb_checkpoint *checkpoint, const char *name); /* NULL = none */
/* Whether the index lists a tensor that is in none of the files. */
bool mb_checkpoint_lacks(const mb_checkpoint *checkpoint, const char *name);
/* The i-th tensor in no particular order, NULL past the end. */
const mb_tensor *mb_checkpoint_tensor(const mb_checkpoint *checkpoint, size_t i);
/* Hash of the bytes of all weight files, in the order of their names, and of their index. */
int mb_checkpoint_hash(const mb_checkpoint *checkpoint, char hex[MB_HASH_CAP], mb_error *err);

#endif
