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

#endif
