/*
 * gguf_model.h - what a GGUF file says about its model, as the files of a checkpoint folder say it. Internal to
 * model/checkpoint/.
 */
#ifndef MB_MODEL_GGUF_MODEL_H
#define MB_MODEL_GGUF_MODEL_H

#include "model/checkpoint/gguf.h"

/* Append the texts of config.json, tokenizer.json and tokenizer_config.json. */
int mb_gguf_write_config(const mb_gguf *gguf, mb_text *json, mb_error *err);
int mb_gguf_write_tokenizer(const mb_gguf *gguf, mb_text *json, mb_error *err);
int mb_gguf_write_tokenizer_config(const mb_gguf *gguf, mb_text *json, mb_error *err);
/* A text of the file as the inside of a JSON string. */
void mb_gguf_write_text(mb_text *json, mb_gguf_text text);

/* Gives the tensors the names of a folder's and notes which rows are interleaved; takes rope_freqs out. The table
 * is sorted by name again. */
int mb_gguf_rename(mb_gguf *gguf, mb_error *err);

#endif
