/*
 * registry.h - finding methods and filling their options; names none of them.
 *
 * Built-in methods come from the Makefile's wildcard over methods/NAME.c, which must define
 * `const mb_method mb_method_NAME`; out-of-tree ones from a shared object with the symbol MB_METHOD_ENTRY.
 */
#ifndef MB_REGISTRY_H
#define MB_REGISTRY_H

#include "base/base.h"
#include "methods/method.h"

/* All methods, built-in first in file-name order, then plug-ins in loading order. */
size_t mb_registry_count(void);
const mb_method *mb_registry_at(size_t i);
const mb_method *mb_registry_find(const char *name); /* NULL = unknown */
/* Path of the shared object, "" for a built-in. */
const char *mb_registry_origin(const mb_method *method);

/* Loads a plug-in: checks the symbol, ABI, struct size and required hooks, and refuses a name that exists. */
int mb_registry_load(const char *path, mb_error *err);
/* What tries a file before this process loads it, by its real path; NULL (the preset): nothing does. A file that
 * it fails is refused with its sentence. */
void mb_registry_probe(int (*probe)(const char *path, mb_error *err));
/* Every *.so in each folder of a colon-separated list ($MASKBENCH_PLUGIN_PATH), in file-name order. */
int mb_registry_load_path(const char *folders, mb_error *err);
void mb_registry_unload(void); /* at the end of the program */

/* ---- options ---- */
/* malloc'ed option struct with every preset filled; NULL for a method without options. */
void *mb_method_options_new(const mb_method *method);
/* Bytes of such a struct: the method's own part, and what the host keeps behind it. */
size_t mb_method_options_bytes(const mb_method *method);
/* True for an option whose text is a path: who reads the text says where it starts from. */
bool mb_method_options_is_file(const mb_method *method, const char *name);
/* Sets one option from its text form ("512", "true", "mean", "2,5,9", a path). key_path names it in the error
 * sentence. */
int mb_method_options_set(const mb_method *method, void *options, const char *name, const char *value,
                          const char *key_path, mb_error *err);
/* Canonical JSON text of all options in table order; malloc'ed. Equal structs give equal texts. */
char *mb_method_options_json(const mb_method *method, const void *options);
/* The value of option "k", or -1 when the method has none. */
int64_t mb_method_options_budget(const mb_method *method, const void *options);
/* What a map's values are by: "layer", "step", "layer and step". */
const char *mb_counter_map_axes(uint32_t axes);
/* `help METHOD`: summary, reference, option table, counters. malloc'ed text. */
char *mb_method_help(const mb_method *method);

#endif
