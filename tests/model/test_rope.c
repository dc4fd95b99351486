/*
 * test_rope.c - RoPE's parameters in both spellings and the frequencies made of them, against transformers'
 * ROPE_INIT_FUNCTIONS (rope_cases.h), and what must be refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/checkpoint/config.h"
#include "model/checkpoint/rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REST                                                                                                      \
    "\"model_type\":\"sdar\",\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":2,"               \
    "\"num_key_value_heads\":1,\"intermediate_size\":96,\"vocab_size\":100,\"block_size\":4,"                     \
    "\"mask_token_id\":99,\"eos_token_id\":98,\"rms_norm_eps\":1e-6"
#define LLADA2                                                                                                    \
    "\"model_type\":\"llada2_moe\",\"architectures\":[\"LLaDA2MoeModelLM\"],\"num_hidden_layers\":2,"             \
    "\"hidden_size\":64,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":32,"                     \
    "\"intermediate_size\":96,\"vocab_size\":157184,\"num_experts\":4,\"num_experts_per_tok\":2,"                 \
    "\"moe_intermediate_size\":32,\"norm_topk_prob\":true,\"n_group\":1,\"topk_group\":1,"                        \
    "\"routed_scaling_factor\":2.5,\"first_k_dense_replace\":1,\"num_shared_experts\":1,"                         \
    "\"rms_norm_eps\":1e-6"

static const struct rope_case {
    const char *name, *keys;
    int32_t length;
    float attention;
    float frequency[16];
} CASES[] = {
#include "tests/model/rope_cases.h"
};

static int parse(mb_model_config *config, const char *first, const char *rest, int32_t length, mb_error *err)
{
    char *json = mb_string_format("{%s,%s}", first, rest);
    mb_model_request request = {.positions = length};
    const mb_config_files files = {
        .json = json, .json_size = strlen(json), .mask_id = -1, .where = "X/config.json"};
    int rc = mb_config_parse(config, &files, &request, err);
    free(json);
    return rc;
}

/* Distance in units of the last place. */
static int64_t steps(float a, float b)
{
    int32_t x, y;
    memcpy(&x, &a, 4);
    memcpy(&y, &b, 4);
    return llabs((int64_t)x - y);
}

static void frequencies(void **state)
{
    (void)state;
    int64_t worst = 0;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        const struct rope_case *c = &CASES[i];
        mb_model_config config;
        mb_error err = {0};
        float frequency[MB_ROPE_PAIRS_MAX];
        if (parse(&config, c->keys, REST, c->length, &err) != MB_OK)
            fail_msg("%s: %s", c->name, err.text);
        float attention = mb_rope_frequencies(&config, frequency);
        if (steps(attention, c->attention) > 1)
            fail_msg("%s: factor %.9g instead of %.9g", c->name, (double)attention, (double)c->attention);
        for (int j = 0; j < 16; j++) {
            int64_t n = steps(frequency[j], c->frequency[j]);
            worst = n > worst ? n : worst;
            if (n > 4) /* libm and torch round powers differently */
                fail_msg("%s: frequency %d is %.9g instead of %.9g", c->name, j, (double)frequency[j],
                         (double)c->frequency[j]);
        }
    }
    print_message("worst distance: %d units of the last place\n", (int)worst);
}

/* Where theta, the type and the share of turned dimensions are looked for, and which of two wins. */
static void places(void **state)
{
    (void)state;
    static const struct {
        const char *keys, *rest;
        double theta;
        int32_t rotary;
    } cases[] = {
        {"\"head_dim\":32,\"rope_theta\":5e5", REST, 5e5, 32},
        {"\"head_dim\":32,\"rope_parameters\":{\"rope_theta\":5e5}", REST, 5e5, 32},
        {"\"head_dim\":32,\"rope_scaling\":{\"rope_theta\":5e5,\"type\":\"default\"}", REST, 5e5, 32},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_parameters\":{\"rope_theta\":1e6}", REST, 1e6, 32},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":null,\"rope_parameters\":{\"rope_theta\":1e6}", REST,
         1e6, 32},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":{},\"rope_parameters\":{\"rope_theta\":1e6}", REST,
         1e6, 32},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":{\"rope_theta\":2e5},\"rope_parameters\":"
         "{\"rope_theta\":1e6}",
         REST, 2e5, 32},
        {"\"rope_theta\":6e5", LLADA2, 6e5, 16},
        {"\"rope_theta\":6e5,\"rotary_dim\":16", LLADA2, 6e5, 16},
        {"\"rope_theta\":6e5,\"partial_rotary_factor\":1.0", LLADA2, 6e5, 32},
        {"\"rope_parameters\":{\"rope_theta\":6e5,\"partial_rotary_factor\":0.5},\"rotary_dim\":16", LLADA2, 6e5,
         16},
        {"\"partial_rotary_factor\":1.0,\"rope_parameters\":{\"rope_theta\":6e5,\"partial_rotary_factor\":0.5}",
         LLADA2, 6e5, 16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_model_config config;
        mb_error err = {0};
        if (parse(&config, cases[i].keys, cases[i].rest, 0, &err) != MB_OK)
            fail_msg("%s: %s", cases[i].keys, err.text);
        if (config.rope_theta != cases[i].theta || config.rotary_dim != cases[i].rotary)
            fail_msg("%s: theta %g, %d dimensions", cases[i].keys, config.rope_theta, config.rotary_dim);
        assert_int_equal(config.rope.type, MB_ROPE_DEFAULT);
    }
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *keys, *word;
    } cases[] = {
        {"\"head_dim\":32,\"rope_theta\":0.5", "rope_theta"},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"su\"}", "\"su\""},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":3}", "(no text)"},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":[1]", "an object"},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"linear\"}", "\"factor\""},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"yarn\"}", "\"factor\""},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}", "factor"},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}",
         "low_freq_factor"},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_"
         "factor\":2,"
         "\"high_freq_factor\":2}",
         "must differ"},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"rope_scaling\":{\"type\":\"longrope\",\"factor\":8,\"short_"
         "factor\":[1],"
         "\"long_factor\":[1]}",
         "list of 16 numbers"},
        {"\"head_dim\":32,\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1e4}}", "each kind of layer"},
        {"\"head_dim\":32,\"rope_theta\":1e4,\"partial_rotary_factor\":0.5", "partial_rotary_factor"},
        {"\"head_dim\":32,\"rope_parameters\":{\"rope_theta\":1e4,\"partial_rotary_factor\":0.5}",
         "partial_rotary_factor"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mb_model_config config;
        mb_error err = {0};
        assert_int_equal(parse(&config, cases[i].keys, REST, 0, &err), MB_E_INPUT);
        if (!strstr(err.text, cases[i].word) || !strstr(err.text, "X/config.json"))
            fail_msg("%s: %s", cases[i].keys, err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies),
        cmocka_unit_test(places),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
