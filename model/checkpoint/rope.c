/*
 * rope.c - RoPE's parameters and frequencies: default, linear, dynamic, YaRN, llama3 and longrope, as transformers
 * 5.24 reads and computes them (modeling_rope_utils.py), in fp32 where it does.
 *
 * Parameters stand in "rope_parameters" (5.x) or "rope_scaling" (4.x, which wins where both have something); the
 * type is called "rope_type" or "type" and is "default" where it is missing. theta and partial_rotary_factor in
 * there win over those at the top. In transformers the frequencies of dynamic and longrope change with the length
 * of the sequence; here they are those of the length that the model is opened for (config.positions).
 */
#include "model/checkpoint/rope.h"

#include "model/checkpoint/json.h"
#include "model/internal.h"

#include <math.h>
#include <string.h>

#define FACTOR_MAX 1e6
#define POSITIONS_MAX (1 << 30)

static const struct {
    const char *name;
    mb_rope_type type;
    bool original; /* knows how many positions there were before the scaling */
} TYPES[] = {{"default", MB_ROPE_DEFAULT, false}, {"linear", MB_ROPE_LINEAR, false},
             {"dynamic", MB_ROPE_DYNAMIC, false}, {"yarn", MB_ROPE_YARN, true},
             {"llama3", MB_ROPE_LLAMA3, true},    {"longrope", MB_ROPE_LONGROPE, true}};

/* ---- reading ---- */

/* The object with the parameters; NULL = none has any. */
static int find_parameters(const cJSON *root, const cJSON **parameters, const char *where, mb_error *err)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    const cJSON *item;
    *parameters = NULL;
    for (int i = 0; i < 2 && !*parameters; i++) {
        const cJSON *found = mb_json_member(root, keys[i]);
        if (found && !cJSON_IsObject(found))
            return mb_fail(err, MB_E_INPUT, "%s: \"%s\" must be null or an object { ... }", where, keys[i]);
        if (found && found->child)
            *parameters = found;
    }
    cJSON_ArrayForEach(item, *parameters)
        if (cJSON_IsObject(item))
            return mb_fail(
                err, MB_E_INPUT,
                "%s: RoPE parameters for each kind of layer (\"%s\") are not supported: one set for all "
                "layers is",
                where, item->string);
    return MB_OK;
}

static int find_type(mb_rope *rope, const cJSON *parameters, bool *original, const char *where, mb_error *err)
{
    const cJSON *type = mb_json_member(parameters, "rope_type");
    if (!type)
        type = mb_json_member(parameters, "type");
    const char *name = type ? cJSON_GetStringValue(type) : "default";
    for (size_t i = 0; name && i < sizeof TYPES / sizeof TYPES[0]; i++)
        if (strcmp(name, TYPES[i].name) == 0) {
            rope->type = TYPES[i].type;
            *original = TYPES[i].original;
            return MB_OK;
        }
    return mb_fail(
        err, MB_E_INPUT,
        "%s: scaled RoPE of type \"%.40s\" is not supported: default, linear, dynamic, yarn, llama3 and "
        "longrope are",
        where, name ? name : "(no text)");
}

/* A required positive number. */
static int need_real(const cJSON *parameters, const char *key, double *value, const char *where, mb_error *err)
{
    if (!mb_json_member(parameters, key))
        return mb_fail(err, MB_E_INPUT, "%s: scaled RoPE of this type needs \"%s\"", where, key);
    return mb_model_json_want_real(parameters, key, where, 1e-6, FACTOR_MAX, value, err);
}

/* One factor a pair. */
static int read_factors(const mb_model_config *config, const cJSON *parameters, const char *key, float *factors,
                        const char *where, mb_error *err)
{
    const cJSON *list = mb_json_member(parameters, key), *item;
    const int pairs = config->rotary_dim / 2;
    int n = 0;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != pairs || pairs > MB_ROPE_PAIRS_MAX)
        return mb_fail(err, MB_E_INPUT,
                       "%s: \"%s\" must be a list of %d numbers, half of the %d dimensions that "
                       "RoPE turns",
                       where, key, pairs, config->rotary_dim);
    cJSON_ArrayForEach(item, list) {
        if (!cJSON_IsNumber(item) || !(item->valuedouble > 0 && item->valuedouble <= FACTOR_MAX))
            return mb_fail(err, MB_E_INPUT, "%s: \"%s\" must list positive numbers", where, key);
        factors[n++] = (float)item->valuedouble;
    }
    return MB_OK;
}

static double yarn_scale(double factor, double mscale)
{
    return factor <= 1 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

static int read_yarn(mb_rope *rope, const cJSON *parameters, const char *where, mb_error *err)
{
    double attention = 0, mscale = 0, mscale_all = 0;
    rope->truncate = true;
    int rc = mb_model_json_want_real(parameters, "attention_factor", where, 0, FACTOR_MAX, &attention, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(parameters, "beta_fast", where, 0, FACTOR_MAX, &rope->beta_fast, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(parameters, "beta_slow", where, 0, FACTOR_MAX, &rope->beta_slow, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(parameters, "mscale", where, 0, FACTOR_MAX, &mscale, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(parameters, "mscale_all_dim", where, 0, FACTOR_MAX, &mscale_all, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_bool(parameters, "truncate", where, &rope->truncate, err);
    rope->beta_fast = rope->beta_fast > 0 ? rope->beta_fast : 32;
    rope->beta_slow = rope->beta_slow > 0 ? rope->beta_slow : 1;
    if (attention > 0)
        rope->attention = attention;
    else if (mscale > 0 && mscale_all > 0)
        rope->attention = yarn_scale(rope->factor, mscale) / yarn_scale(rope->factor, mscale_all);
    else
        rope->attention = yarn_scale(rope->factor, 1);
    return rc;
}

static int read_longrope(mb_model_config *config, const cJSON *parameters, const char *where, mb_error *err)
{
    mb_rope *rope = &config->rope;
    double attention = 0;
    int rc = read_factors(config, parameters, "short_factor", rope->factors[0], where, err);
    if (rc == MB_OK)
        rc = read_factors(config, parameters, "long_factor", rope->factors[1], where, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(parameters, "attention_factor", where, 0, FACTOR_MAX, &attention, err);
    if (attention > 0)
        rope->attention = attention;
    else
        rope->attention = rope->factor <= 1 ? 1.0 : sqrt(1 + log(rope->factor) / log(rope->original));
    return rc;
}

static int read_llama3(mb_rope *rope, const cJSON *parameters, const char *where, mb_error *err)
{
    int rc = need_real(parameters, "low_freq_factor", &rope->low_freq, where, err);
    if (rc == MB_OK)
        rc = need_real(parameters, "high_freq_factor", &rope->high_freq, where, err);
    if (rc == MB_OK && rope->high_freq == rope->low_freq)
        rc = mb_fail(err, MB_E_INPUT, "%s: \"low_freq_factor\" and \"high_freq_factor\" must differ", where);
    return rc;
}

/* factor and what the type needs beside it. An original length at the top wins, as with Phi-3's files. */
static int read_scaling(mb_model_config *config, const cJSON *root, const cJSON *parameters, bool original,
                        const char *where, mb_error *err)
{
    mb_rope *rope = &config->rope;
    /* null in yarn, missing in longrope: the ratio of the two lengths */
    const bool ratio = (rope->type == MB_ROPE_YARN && cJSON_HasObjectItem(parameters, "factor") &&
                        !mb_json_member(parameters, "factor")) ||
                       (rope->type == MB_ROPE_LONGROPE && !mb_json_member(parameters, "factor"));
    int rc = MB_OK;
    rope->original = config->positions;
    if (original)
        rc = mb_model_json_want_int(mb_json_member(root, "original_max_position_embeddings") ? root : parameters,
                                    "original_max_position_embeddings", where, 2, POSITIONS_MAX, &rope->original,
                                    err);
    if (rc == MB_OK && ratio)
        rope->factor = (double)config->positions / rope->original;
    else if (rc == MB_OK)
        rc = need_real(parameters, "factor", &rope->factor, where, err);
    if (rc == MB_OK && rope->type == MB_ROPE_YARN)
        rc = read_yarn(rope, parameters, where, err);
    if (rc == MB_OK && rope->type == MB_ROPE_LLAMA3)
        rc = read_llama3(rope, parameters, where, err);
    if (rc == MB_OK && rope->type == MB_ROPE_LONGROPE)
        rc = read_longrope(config, parameters, where, err);
    return rc;
}

int mb_rope_read(mb_model_config *config, const cJSON *root, double partial, const char *where, mb_error *err)
{
    const cJSON *parameters = NULL;
    bool original = false;
    config->rope = (mb_rope){0};
    int rc = find_parameters(root, &parameters, where, err);
    if (rc == MB_OK)
        rc = find_type(&config->rope, parameters, &original, where, err);
    if (rc != MB_OK)
        return rc;
    const cJSON *theta = mb_json_member(parameters, "rope_theta") ? parameters : root;
    const cJSON *factor = mb_json_member(parameters, "partial_rotary_factor") ? parameters : root;
    rc = mb_model_json_want_real(theta, "rope_theta", where, 1.0, 1e12, &config->rope_theta, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(factor, "partial_rotary_factor", where, 0.0, 1.0, &partial, err);
    config->rotary_dim = (int32_t)(config->head_dim * partial);
    if (rc == MB_OK && config->rope.type == MB_ROPE_DYNAMIC && config->rotary_dim <= 2)
        return mb_fail(err, MB_E_INPUT, "%s: dynamic RoPE needs more than 2 turned dimensions", where);
    if (rc == MB_OK && config->rope.type != MB_ROPE_DEFAULT)
        rc = read_scaling(config, root, parameters, original, where, err);
    return rc;
}

/* ---- frequencies ---- */

/* base^(2j / dim) in fp32, as torch's pow of a scalar and an fp32 tensor. */
static float wave(double base, int j, int dim)
{
    return powf((float)base, (float)(2 * j) / (float)dim);
}

/* The pair that turns `rotations` times within the original length. */
static double yarn_pair(double rotations, int dim, double base, double original)
{
    return dim * log(original / (rotations * 2 * M_PI)) / (2 * log(base));
}

static void yarn(const mb_model_config *config, float *frequency)
{
    const mb_rope *rope = &config->rope;
    const int dim = config->rotary_dim;
    double low = yarn_pair(rope->beta_fast, dim, config->rope_theta, rope->original);
    double high = yarn_pair(rope->beta_slow, dim, config->rope_theta, rope->original);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < dim - 1 ? high : dim - 1;
    if (low == high)
        high += 0.001;
    for (int j = 0; j < dim / 2; j++) {
        float position = wave(config->rope_theta, j, dim);
        float ramp = ((float)j - (float)low) / (float)(high - low);
        float keep = 1.0f - (ramp < 0 ? 0.0f : ramp > 1 ? 1.0f : ramp);
        frequency[j] = 1.0f / ((float)rope->factor * position) * (1.0f - keep) + 1.0f / position * keep;
    }
}

static void llama3(const mb_rope *rope, int pairs, float *frequency)
{
    const float longest = (float)(rope->original / rope->low_freq),
                shortest = (float)(rope->original / rope->high_freq), factor = (float)rope->factor;
    for (int j = 0; j < pairs; j++) {
        const float plain = frequency[j], length = (float)(2 * M_PI) / plain;
        if (length > longest)
            frequency[j] = plain / factor;
        else if (!(length < shortest)) {
            float smooth = ((float)rope->original / length - (float)rope->low_freq) /
                           (float)(rope->high_freq - rope->low_freq);
            frequency[j] = (1.0f - smooth) * plain / factor + smooth * plain;
        }
    }
}

float mb_rope_frequencies(const mb_model_config *config, float *frequency)
{
    const mb_rope *rope = &config->rope;
    const int dim = config->rotary_dim, pairs = dim / 2;
    double base = config->rope_theta;
    if (rope->type == MB_ROPE_DYNAMIC) {
        double length = config->positions > rope->original ? config->positions : rope->original;
        base *= pow(rope->factor * length / rope->original - (rope->factor - 1), (double)dim / (dim - 2));
    }
    if (rope->type == MB_ROPE_YARN)
        yarn(config, frequency);
    else
        for (int j = 0; j < pairs; j++) {
            float scale =
                rope->type == MB_ROPE_LONGROPE ? rope->factors[config->positions > rope->original][j] : 1;
            frequency[j] = 1.0f / (scale * wave(base, j, dim));
            if (rope->type == MB_ROPE_LINEAR)
                frequency[j] /= (float)rope->factor;
        }
    if (rope->type == MB_ROPE_PROPORTIONAL)
        for (int j = 0; j < pairs; j++)
            frequency[j] = j < rope->turned ? frequency[j] / (float)rope->factor : 0.0f;
    if (rope->type == MB_ROPE_LLAMA3)
        llama3(rope, pairs, frequency);
    return rope->attention > 0 ? (float)rope->attention : 1.0f;
}

int mb_rope_table(const mb_model *model, const mb_model_config *config, void *stage, size_t bytes, float **place,
                  mb_error *err)
{
    const size_t width = (size_t)config->rotary_dim, pairs = width / 2, rows = bytes / (width * sizeof(float));
    float *table = stage, frequency[MB_ROPE_PAIRS_MAX];
    *place = model->kernels->alloc(model->device, (size_t)config->positions * width * sizeof(float));
    if (!*place)
        return mb_fail(err, MB_E_SYSTEM, "the device arena has no room for the RoPE table of %d positions",
                       config->positions);
    const float attention = mb_rope_frequencies(config, frequency);
    for (size_t first = 0; first < (size_t)config->positions; first += rows) {
        size_t count = (size_t)config->positions - first < rows ? (size_t)config->positions - first : rows;
        for (size_t p = 0; p < count; p++) {
            for (size_t j = 0; j < pairs; j++) {
                float sine, cosine;
                sincosf((float)(first + p) * frequency[j], &sine, &cosine);
                table[p * width + j] = mb_type_round(cosine * attention, model->type);
                table[p * width + pairs + j] = mb_type_round(sine * attention, model->type);
            }
        }
        int rc =
            model->kernels->upload(model->device, *place + first * width, table, count * width * sizeof(float));
        if (rc < 0)
            return mb_fail(err, rc, "loading the RoPE table into the device: %s",
                           model->kernels->error(model->device));
    }
    return MB_OK;
}
