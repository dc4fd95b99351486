/*
 * internal.h - what the files of the registry share. Nothing outside this folder includes it.
 *
 * A registered method is a struct that the registry may keep for ever: a built-in's own constant, or a copy of a
 * plug-in's, extended with NULL hooks when the plug-in was built against an older, shorter struct.
 */
#ifndef MB_REGISTRY_INTERNAL_H
#define MB_REGISTRY_INTERNAL_H

#include "methods/registry/registry.h"

/* Room for `counters` in a decode result; a method may not declare more. */
#define MB_REGISTRY_COUNTERS 32
#define MB_REGISTRY_COUNTER_MAPS 32 /* the same of `maps` */

typedef struct mb_registry_entry {
    const mb_method *method;
    mb_method *owned; /* the host's copy of a plug-in's struct; NULL for a built-in */
    char *origin;     /* real path of the shared object; NULL for a built-in */
    void *library;    /* dlopen handle */
} mb_registry_entry;

/* Everything that can be checked without running the method: name, hooks, option rows, counters. */
int mb_registry_check(const mb_method *method, mb_error *err);
int mb_registry_check_options(const mb_method *method, mb_error *err);
/* The file's content, read now; equal contents of a path are kept once, until mb_registry_forget_files(). */
int mb_registry_file(const char *path, mb_option_file *file, mb_error *err);
void mb_registry_forget_files(void);
/* Takes over what the entry owns on success. */
int mb_registry_add(const mb_registry_entry *entry, mb_error *err);
/* dlclose(), with what its destructors do to this process undone. */
void mb_registry_close_library(void *library);
/* True when this very file (real path) is registered. */
bool mb_registry_has_origin(const char *origin);

#endif
