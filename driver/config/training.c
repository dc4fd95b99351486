/*
 * training.c - every key of a training's config, a row each (keys.h says what the columns are), and the way from a
 * file to struct mb_train_config. Defaults of the optimiser and of the noise are those of the embedded model's
 * recipe.
 */
#include "driver/config/training.h"

#include "driver/config/keys.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTION MB_KEY_TRAINING
#define FIELD(field) .offset = offsetof(mb_train_config, field), .size = sizeof((mb_train_config *)0)->field
#define ASKED(field) FIELD(request.field)
#define MAX_SEED 9007199254740992.0
#define MAX_TOKENS 1048576

static const mb_key_choice recipes[] = {{"block_diffusion", MB_RECIPE_BLOCK_DIFFUSION},
                                        {"mage_ft", MB_RECIPE_MAGE_FT},
                                        {"uniform_noise", MB_RECIPE_UNIFORM_NOISE},
                                        {NULL, 0}};
static const mb_key_choice weights[] = {{"checkpoint", MB_START_READ}, {"random", MB_START_DRAWN}, {NULL, 0}};
static const mb_key_choice schedules[] = {
    {"cosine", MB_LR_COSINE}, {"linear", MB_LR_LINEAR}, {"constant", MB_LR_CONSTANT}, {NULL, 0}};
static const mb_key_choice sources[] = {{"noisy", MB_INDEX_NOISY}, {"mask", MB_INDEX_MASK}, {NULL, 0}};
static const mb_key_choice teachers[] = {{"self", MB_TEACHER_SELF}, {"frozen", MB_TEACHER_FROZEN}, {NULL, 0}};
static const mb_key_choice products[] = {{"f32", MB_PRODUCTS_F32}, {"mixed", MB_PRODUCTS_MIXED}, {NULL, 0}};
static const mb_key_choice outputs[] = {{"bf16", MB_BF16}, {"f32", MB_F32}, {NULL, 0}};

const mb_key mb_train_keys[] = {
    {SECTION, "name", MB_KEY_TEXT, FIELD(name), .preset_words = "the file's name",
     .help = "name of the training; results/NAME and results/NAME.db by default"},
    {SECTION, "recipe", MB_KEY_CHOICE, ASKED(recipe), .choices = recipes, .preset = "block_diffusion",
     .help =
         "block_diffusion; mage_ft: fine-tuning to sparse attention by self-distillation; uniform_noise: random "
         "tokens in place of masks"},
    {SECTION, "seed", MB_KEY_INT, ASKED(seed), .max = MAX_SEED, .preset = "1",
     .help = "seed of everything drawn: weights, documents, noise"},
    {SECTION, "device", MB_KEY_TEXT, FIELD(device), .preset = "cpu",
     .help = "cpu, cuda or cuda:N; the result depends on it"},
    {SECTION, "products", MB_KEY_CHOICE, FIELD(products), .choices = products, .preset = "f32",
     .help = "how a GPU computes products: f32; or mixed: operands are rounded to TF32 in products with weights "
             "and to "
             "bf16 in attention, sums and everything in memory stay fp32"},
    {SECTION, "threads", MB_KEY_INT, FIELD(threads), .max = 1024, .preset = "0", .extends = true,
     .help = "CPU worker threads; 0 = all cores this process may use; the result does not depend on it"},
    {SECTION, "memory_gib", MB_KEY_REAL, FIELD(memory_gib), .max = 1e6, .preset = "0", .extends = true,
     .help = "memory the training may plan with; 0 = any"},
    {SECTION, "model", MB_KEY_PATH, FIELD(model), .preset = "models/tiny",
     .help = "checkpoint folder: tokenizer, sizes and, where training starts from it, weights"},
    {SECTION, "start", MB_KEY_CHOICE, ASKED(start), .choices = weights, .preset = "checkpoint",
     .help = "weights to begin with"},
    {SECTION, "layers", MB_KEY_INT, ASKED(layers), .max = 1024, .preset = "0",
     .help = "decoder layers of a model from random weights; 0 = config.json's; so the next five"},
    {SECTION, "hidden", MB_KEY_INT, ASKED(hidden), .max = 65536, .preset = "0", .help = "hidden size"},
    {SECTION, "query_heads", MB_KEY_INT, ASKED(query_heads), .max = 1024, .preset = "0", .help = "query heads"},
    {SECTION, "kv_heads", MB_KEY_INT, ASKED(kv_heads), .max = 1024, .preset = "0", .help = "KV heads"},
    {SECTION, "head_dim", MB_KEY_INT, ASKED(head_dim), .max = 256, .preset = "0", .help = "dimensions of a head"},
    {SECTION, "intermediate", MB_KEY_INT, ASKED(intermediate), .max = 1048576, .preset = "0",
     .help = "inner width of the feed-forward part"},
    {SECTION, "block", MB_KEY_INT, ASKED(block), .max = 256, .preset = "0",
     .help = "block length B; 0 = the checkpoint's"},
    {SECTION, "mask", MB_KEY_INT, ASKED(mask), .max = 2147483647, .preset = "0",
     .help = "id of the mask token, for a base that has none; 0 = the checkpoint's"},

    {SECTION, "data", MB_KEY_PATH, FIELD(data), .preset = "",
     .help = "file of JSON lines; \"\" = needles in generated text, as the embedded model was trained on"},
    {SECTION, "field", MB_KEY_TEXT, FIELD(field), .preset = "text",
     .help = "member of a JSON line that holds the text"},
    {SECTION, "lengths", MB_KEY_INTS, FIELD(lengths), .min = 1, .max = MAX_TOKENS, .preset = "[512]",
     .help = "tokens of a document; several: each for an equal part of the steps, in this order"},
    {SECTION, "tails", MB_KEY_INTS, FIELD(tails), .max = MAX_TOKENS, .preset_words = "the whole document",
     .help = "tokens at the end of a document of each length that are made noisy; 0 = all"},
    {SECTION, "tokens", MB_KEY_INT, ASKED(tokens), .min = 1, .max = 16777216, .preset = "4096",
     .help = "rows of a micro-batch, noisy copies among them; at least one document"},
    {SECTION, "accumulate", MB_KEY_INT, ASKED(accumulate), .min = 1, .max = 4096, .preset = "1",
     .help = "micro-batches of a step"},
    {SECTION, "full_blocks", MB_KEY_REAL, ASKED(full_blocks), .max = 1, .preset = "0.4",
     .help = "share of blocks that are masked as a whole; the others at a uniform share"},
    {SECTION, "text_weight", MB_KEY_REAL, ASKED(text_weight), .max = 1e3, .preset = "0.1",
     .help = "weight of a masked token that is no answer; answers count 1"},
    {SECTION, "padding_weight", MB_KEY_REAL, ASKED(padding_weight), .max = 1e3, .preset = "0.05",
     .help = "weight of masked padding behind an answer"},
    {SECTION, "complementary", MB_KEY_BOOL, ASKED(complementary), .preset = "false",
     .help = "each document twice, the second with the masks of the first inverted, as Fast-dLLM v2 trains"},
    {SECTION, "token_shift", MB_KEY_BOOL, ASKED(token_shift), .preset = "false",
     .help = "a token is predicted by the row in front of it, as Fast-dLLM v2 decodes"},
    {SECTION, "kept_weight", MB_KEY_REAL, ASKED(kept_weight), .max = 1e3, .preset = "1",
     .help = "uniform_noise: factor on the weight of a noisy token that was not replaced"},
    {SECTION, "causal_weight", MB_KEY_REAL, ASKED(causal_weight), .max = 1e6, .preset = "0",
     .help = "weight of the autoregressive loss of the same documents beside the recipe's; 0 = none"},

    {SECTION, "lora_rank", MB_KEY_INT, ASKED(lora.rank), .max = 4096, .preset = "0",
     .help = "rank of a LoRA adapter, which is trained in place of the weights; 0 = the weights are trained"},
    {SECTION, "lora_alpha", MB_KEY_REAL, ASKED(lora.alpha), .min = 1e-6, .max = 1e6, .preset = "16",
     .help = "the adapter counts alpha / rank times"},
    {SECTION, "lora_targets", MB_KEY_TEXT, FIELD(targets),
     .preset = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj",
     .help = "projections with an adapter, blanks between them"},

    {SECTION, "steps", MB_KEY_INT, ASKED(steps), .min = 1, .max = 1e9, .preset = "200",
     .help = "optimiser steps (mage_ft: the paper says fewer than 200)"},
    {SECTION, "lr", MB_KEY_REAL, ASKED(lr), .max = 10, .preset = "0.002",
     .help = "learning rate (mage_ft: the paper names none)"},
    {SECTION, "lr_min", MB_KEY_REAL, ASKED(lr_min), .max = 1, .preset = "0.02",
     .help = "share of lr that is left at the end"},
    {SECTION, "hold", MB_KEY_REAL, ASKED(hold), .max = 1, .preset = "0",
     .help = "share of the steps before lr begins to fall"},
    {SECTION, "warmup", MB_KEY_INT, ASKED(warmup), .max = 1e9, .preset = "20", .help = "steps in which lr rises"},
    {SECTION, "schedule", MB_KEY_CHOICE, ASKED(schedule), .choices = schedules, .preset = "cosine",
     .help = "how lr falls"},
    {SECTION, "beta1", MB_KEY_REAL, ASKED(beta1), .max = 0.999999, .preset = "0.9", .help = "of AdamW"},
    {SECTION, "beta2", MB_KEY_REAL, ASKED(beta2), .max = 0.999999, .preset = "0.95", .help = "of AdamW"},
    {SECTION, "eps", MB_KEY_REAL, ASKED(eps), .min = 1e-12, .max = 1, .preset = "1e-8", .help = "of AdamW"},
    {SECTION, "decay", MB_KEY_REAL, ASKED(decay), .max = 10, .preset = "0.1",
     .help = "weight decay of matrices; vectors have none"},
    {SECTION, "clip", MB_KEY_REAL, ASKED(clip), .max = 1e9, .preset = "1",
     .help = "largest norm of a step's gradient; 0 = any"},
    {SECTION, "loss_limit", MB_KEY_REAL, ASKED(loss_limit), .max = 1e300, .preset = "0",
     .help =
         "nats: a step's cross entropy above it ends the training; 0 = ten times that of a guess, ln(vocabulary)"},

    {SECTION, "k", MB_KEY_INT, ASKED(k), .min = 1, .max = MAX_TOKENS, .preset = "16",
     .help = "mage_ft: prefix keys of a block, layer and KV head; with top_p the fewest"},
    {SECTION, "top_p", MB_KEY_REAL, ASKED(top_p), .max = 1, .preset = "0",
     .help = "mage_ft: keys that hold this share of the mass, in place of the k best; 0 = k"},
    {SECTION, "k_max", MB_KEY_INT, ASKED(k_max), .min = 1, .max = MAX_TOKENS, .preset = "256",
     .help = "mage_ft with top_p: most keys"},
    {SECTION, "dense_layers", MB_KEY_INT, ASKED(dense_layers), .max = 1024, .preset = "2",
     .help = "mage_ft: layers at the beginning that stay exact"},
    {SECTION, "lambda", MB_KEY_REAL, ASKED(lambda), .max = 1e6, .preset = "1",
     .help = "mage_ft: weight of KL(student, teacher) beside the cross entropy (the paper names none)"},
    {SECTION, "index_from", MB_KEY_CHOICE, ASKED(index_from), .choices = sources, .preset = "noisy",
     .help = "mage_ft: rows whose exact attention selects: the noisy ones, as the paper has it, or a pass with "
             "every noisy token masked, as decoding has it"},
    {SECTION, "teacher", MB_KEY_CHOICE, ASKED(teacher), .choices = teachers, .preset = "self",
     .help = "mage_ft: weights of the exact teacher: the student's own of this step, or those it began with (the "
             "paper does not say)"},

    {SECTION, "checkpointing", MB_KEY_BOOL, ASKED(checkpointing), .preset = "false", .extends = true,
     .help =
         "keep each layer's input only and compute the layer again on the way back: less memory, the same bits"},
    {SECTION, "chunk", MB_KEY_INT, ASKED(chunk), .min = 1, .max = 1048576, .preset = "256", .extends = false,
     .help = "rows whose logits are held at a time"},
    {SECTION, "save_every", MB_KEY_INT, ASKED(save_every), .min = 1, .max = 1e9, .preset = "50", .extends = true,
     .help = "steps between checkpoints"},
    {SECTION, "type", MB_KEY_CHOICE, ASKED(output), .choices = outputs, .preset = "bf16", .extends = true,
     .help = "type of the weights that are written; the training itself is fp32"},
    {SECTION, "out", MB_KEY_TEXT, FIELD(out), .preset_words = "results/NAME", .extends = true,
     .help = "folder of the trained model and of its checkpoint"},
    {SECTION, "results", MB_KEY_TEXT, FIELD(results), .preset_words = "results/NAME.db", .extends = true,
     .help = "SQLite file of losses, gradient norms and tokens per second"},
    {.name = NULL},
};

/* The JSON whole, and without the keys that only extend a training. */
static int make_texts(mb_train_config *config, cJSON *json, mb_error *err)
{
    config->stored = cJSON_PrintUnformatted(json);
    for (const mb_key *key = mb_train_keys; key->name; key++)
        if (key->extends)
            cJSON_DeleteItemFromObjectCaseSensitive(json, key->name);
    config->identity = cJSON_PrintUnformatted(json);
    return config->stored && config->identity ? MB_OK : mb_no_memory(err, "the config");
}

static int finish_names(mb_train_config *config, const char *path, mb_error *err)
{
    const char *slash = strrchr(path, '/'), *stem = slash ? slash + 1 : path;
    if (!config->name)
        config->name = mb_string_format("%.*s", (int)strcspn(stem, "."), stem);
    if (!config->name || !*config->name || strchr(config->name, '/'))
        return mb_fail(err, MB_E_INPUT, "config key name must be text without a slash");
    if (!config->out)
        config->out = mb_string_format("results/%s", config->name);
    if (!config->results)
        config->results = mb_string_format("results/%s.db", config->name);
    config->path = mb_string_copy(path);
    return config->out && config->results && config->path ? MB_OK : mb_no_memory(err, "the config");
}

static int read_file(mb_train_config *config, const char *path, const mb_config_flags *flags, mb_error *err)
{
    char *text = NULL;
    size_t size = 0;
    cJSON *json = NULL;
    int rc = mb_file_read(path, MB_CONFIG_MAX_BYTES, &text, &size, err);
    if (rc == MB_OK)
        rc = mb_config_text(text, size, path, &json, err);
    if (rc == MB_OK)
        rc = mb_config_resolve(&json, path, err);
    if (rc == MB_OK)
        rc = mb_config_apply(json, flags, err);
    if (rc == MB_OK && (rc = mb_config_check(json, SECTION, "", false, err)) != MB_OK)
        mb_fail_prefix(err, rc, "%s", path);
    if (rc == MB_OK)
        rc = mb_config_fill(json, SECTION, config, err);
    if (rc == MB_OK)
        rc = finish_names(config, path, err);
    if (rc == MB_OK)
        rc = make_texts(config, json, err);
    cJSON_Delete(json);
    free(text);
    return rc;
}

int mb_train_config_load(mb_train_config *config, const char *path, const mb_config_flags *flags, mb_error *err)
{
    memset(config, 0, sizeof *config);
    if (!path)
        return mb_fail(err, MB_E_INPUT, "train what? ./harness train --config configs/train_tiny.json");
    char *found = mb_shared_path(path);
    int rc = read_file(config, found ? found : path, flags, err);
    free(found);
    if (rc != MB_OK) {
        mb_train_config_free(config);
        return rc;
    }
    mb_train_request *r = &config->request;
    r->model = config->model;
    r->data = config->data;
    r->field = config->field;
    r->lora.targets = config->targets;
    r->out = config->out;
    r->identity = config->identity;
    r->lengths = config->lengths.values;
    r->length_count = config->lengths.count;
    r->tails = config->tails.values;
    r->tail_count = config->tails.count;
    return MB_OK;
}

void mb_train_config_free(mb_train_config *config)
{
    mb_config_release(SECTION, config);
    cJSON_free(config->identity);
    cJSON_free(config->stored);
    free(config->path);
    memset(config, 0, sizeof *config);
}

void mb_train_config_help(mb_text *out)
{
    mb_text_puts(out,
                 "Keys of a training's config file (JSON), for ./harness train --config FILE. Any key can be\n"
                 "overridden: --set steps=20. A key marked + extends a training: another value continues it.\n\n");
    mb_config_help_rows(mb_train_keys, out);
}

void mb_train_config_help_markdown(mb_text *out)
{
    mb_config_help_rows_markdown(mb_train_keys, out);
}
