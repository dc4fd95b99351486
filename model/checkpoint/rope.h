/*
 * rope.h - RoPE's parameters from a checkpoint's config.json, and the frequencies made of them. Internal to
 * model/.
 */
#ifndef MB_MODEL_ROPE_H
#define MB_MODEL_ROPE_H

#include "model/model.h"

struct cJSON;

/* Reads rope_theta, rope and rotary_dim of the config. root: config.json; head_dim and positions are known, as the
 * file has them. partial: the family's partial_rotary_factor where the file has none. MB_E_INPUT: unknown types,
 * values of a wrong kind, and what a type needs and the file lacks. */
int mb_rope_read(mb_model_config *config, const struct cJSON *root, double partial, const char *where,
                 mb_error *err);
/* frequency: rotary_dim / 2 values, radians a position. Returns the factor on cosine and sine. */
float mb_rope_frequencies(const mb_model_config *config, float *frequency);

/* Allocates and fills a table of cosine and sine on the model's device, as the families' rotary code: frequencies
 * and angles in fp32, cosine and sine (times the attention factor) rounded to T. stage: host memory to work in,
 * for one position at least. */
int mb_rope_table(const mb_model *model, const mb_model_config *config, void *stage, size_t bytes, float **place,
                  mb_error *err);

#endif
