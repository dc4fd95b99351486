/*
 * training.h - the config of a training: a file of its own kind with keys of its own, which the mechanism of a
 * run's config (keys.h) reads: rows in training.c, comments and bases, --set.
 */
#ifndef MB_CONFIG_TRAIN_H
#define MB_CONFIG_TRAIN_H

#include "driver/config/config.h"
#include "training/training.h"

typedef enum mb_train_products { MB_PRODUCTS_F32 = 0, MB_PRODUCTS_MIXED = 1 } mb_train_products;

typedef struct mb_train_config {
    char *name, *path, *device, *model, *data, *field, *targets, *out, *results;
    char *identity, *stored;    /* the JSON without keys that only extend a training, and whole; owned */
    mb_key_ints lengths, tails; /* tails: empty = every tail is the whole document */
    double memory_gib;          /* 0 = what there is */
    mb_train_products products; /* how a GPU computes them */
    int32_t threads;
    mb_train_request request; /* its texts and arrays are those above */
} mb_train_config;

/* Every mistake is MB_E_INPUT and a sentence with the key. path is needed: no training is built in. */
int mb_train_config_load(mb_train_config *config, const char *path, const mb_config_flags *flags, mb_error *err);
void mb_train_config_free(mb_train_config *config);
/* The keys as text: `./harness help training`, and as Markdown. */
void mb_train_config_help(mb_text *out);
void mb_train_config_help_markdown(mb_text *out);

#endif
