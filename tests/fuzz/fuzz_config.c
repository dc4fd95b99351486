/*
 * fuzz_config.c - any text as config.json, what follows a zero byte as generation_config.json: the result is a
 * refusal with a sentence, or a configuration whose numbers are safe to compute with.
 */
#include "model/checkpoint/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mb_model_config c;
    mb_error err = {0};
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    char *zero = memchr(text, '\0', size), *generation = NULL;
    size_t length = zero ? (size_t)(zero - text) : size, rest = 0;
    if (zero) { /* in memory of its own, so that reading past the end is seen */
        rest = size - length - 1;
        generation = malloc(rest + 1);
        if (generation)
            memcpy(generation, zero + 1, rest);
    }
    const mb_config_files files = {.json = text,
                                   .json_size = length,
                                   .generation = generation,
                                   .generation_size = rest,
                                   .mask_id = size % 3 ? -1 : (int32_t)(size * 7),
                                   .block = (int32_t)(size % 5 * 8),
                                   .where = "config.json"};
    int rc = mb_config_parse(&c, &files, NULL, &err);
    if (rc != MB_OK) {
        if ((rc != MB_E_INPUT && rc != MB_E_SYSTEM) || err.text[0] == '\0')
            abort();
    } else {
        if (c.layers < 1 || c.hidden < 1 || c.kv_heads < 1 || c.query_heads % c.kv_heads || c.head_dim < 2 ||
            c.head_dim % 2 || c.intermediate < 1 || c.block < 1 || c.sub_block < 1 || c.block % c.sub_block ||
            c.positions < c.block || c.mask_id < 0 || c.mask_id >= c.vocab || c.stop_count < 1 ||
            c.stop_count > 8 || c.rotary_dim < 2 || c.rotary_dim > c.head_dim || c.rotary_dim % 2 ||
            (c.moe.experts && (c.moe.experts % c.moe.groups || c.moe.per_token < 1 || c.moe.size < 1 ||
                               c.moe.per_token > c.moe.experts / c.moe.groups * c.moe.groups_kept ||
                               c.moe.dense_layers >= c.layers || c.moe.shared < 0 || !(c.moe.scale > 0))) ||
            !(c.rope_theta >= 1) || !(c.norm_eps >= 0))
            abort();
        if (mb_model_weight_bytes(&c, MB_BF16) > mb_model_weight_bytes(&c, MB_F32))
            abort();
    }
    free(generation);
    free(text);
    return 0;
}
