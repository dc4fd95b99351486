/*
 * plugin.c - loading an out-of-tree method. A shared object exports one symbol, MB_METHOD_ENTRY; it links
 * nothing of ours, because everything it may call arrives as a table (mb_host).
 *
 * Invariant: a struct of another ABI version is never read beyond its first field, and one of the same version
 * never beyond its own size. What is kept is a copy of this build's size, so a hook that the plug-in does not
 * know is NULL.
 */
#include "base/foreign.h"
#include "methods/registry/internal.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The last field without which a method cannot work; a shorter struct is no method. */
#define SMALLEST_METHOD (offsetof(mb_method, select) + sizeof(((mb_method *)0)->select))

/* A plain sentence for what dlopen() refused. */
static int open_library(const char *path, void **library, mb_error *err)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return mb_fail(err, MB_E_INPUT, "cannot open it: %s", strerror(errno));
    if (!S_ISREG(info.st_mode))
        return mb_fail(err, MB_E_INPUT, "it is not a file; name the shared object itself");
    /* RTLD_NOW: a missing function is found here and not in the middle of a run. RTLD_LOCAL: two plug-ins may
     * use the same helper names. */
    mb_foreign guard;
    mb_foreign_enter(&guard, MB_FOREIGN_WHOLE); /* constructors run */
    *library = MB_FOREIGN_LEFT(&guard) ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
    mb_foreign_leave(&guard);
    if (guard.left)
        return mb_fail(err, MB_E_INPUT, "it ended the program while it was loaded: %s(%d)", guard.call,
                       guard.exit_code);
    if (!*library) {
        const char *text = dlerror();
        char *example = mb_shared_path("methods/examples/example.c");
        mb_fail(err, MB_E_INPUT, "it cannot be loaded as a shared object: %s; %s shows how to build one",
                text ? text : "no reason given", example ? example : "the documentation");
        free(example);
        return MB_E_INPUT;
    }
    return MB_OK;
}

/* Destructors run. */
void mb_registry_close_library(void *library)
{
    mb_foreign guard;
    mb_foreign_enter(&guard, MB_FOREIGN_WHOLE);
    if (!MB_FOREIGN_LEFT(&guard))
        dlclose(library);
    mb_foreign_leave(&guard);
}

/* Asks the library for its method and copies it into a struct of this build's size. */
static int copy_method(void *library, mb_method **copy, mb_error *err)
{
    mb_method_entry_fn entry;
    void *symbol = dlsym(library, MB_METHOD_ENTRY);
    if (!symbol)
        return mb_fail(err, MB_E_INPUT,
                       "the symbol %s is missing; a method exports \"const mb_method *%s(uint32_t host_abi)\"",
                       MB_METHOD_ENTRY, MB_METHOD_ENTRY);
    memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from object to function pointer */
    mb_foreign guard;
    mb_foreign_enter(&guard, MB_FOREIGN_WHOLE);
    const mb_method *method = MB_FOREIGN_LEFT(&guard) ? NULL : entry(MB_METHOD_ABI);
    mb_foreign_leave(&guard);
    if (guard.left)
        return mb_fail(err, MB_E_INPUT, "it ended the program while it was loaded: %s(%d)", guard.call,
                       guard.exit_code);
    if (!method)
        return mb_fail(err, MB_E_INPUT, "it does not serve ABI version %u of this program; rebuild it",
                       MB_METHOD_ABI);
    if (method->abi != MB_METHOD_ABI)
        return mb_fail(err, MB_E_INPUT,
                       "it was built for ABI version %u, this program has version %u; rebuild it with this "
                       "program's method.h",
                       method->abi, MB_METHOD_ABI);
    if (method->size < SMALLEST_METHOD)
        return mb_fail(err, MB_E_INPUT,
                       "its struct has %u bytes, a method needs at least %zu; set size to sizeof(mb_method)",
                       method->size, SMALLEST_METHOD);
    *copy = calloc(1, sizeof **copy);
    if (!*copy)
        return mb_no_memory(err, "the methods");
    /* A newer plug-in may be longer: its extra fields are hooks that this program does not call. */
    memcpy(*copy, method, method->size < sizeof **copy ? method->size : sizeof **copy);
    (*copy)->caps &= ~MB_CAP_LOSSLESS; /* nobody is compared with a method on its word alone */
    return MB_OK;
}

static int (*probe_file)(const char *path, mb_error *err);

void mb_registry_probe(int (*probe)(const char *path, mb_error *err))
{
    probe_file = probe;
}

int mb_registry_load(const char *path, mb_error *err)
{
    mb_registry_entry entry = {0};
    /* dlopen() would search the library path for a name without a slash. */
    entry.origin = realpath(path, NULL);
    if (!entry.origin)
        return mb_fail(err, MB_E_INPUT, "plug-in %s: cannot open it: %s", path, strerror(errno));
    if (mb_registry_has_origin(entry.origin)) {
        free(entry.origin); /* named on the command line and found in the folder as well */
        return MB_OK;
    }
    int rc = probe_file ? probe_file(entry.origin, err) : MB_OK;
    if (rc == MB_OK)
        rc = open_library(entry.origin, &entry.library, err);
    if (rc == MB_OK)
        rc = copy_method(entry.library, &entry.owned, err);
    if (rc == MB_OK)
        rc = mb_registry_check(entry.owned, err);
    entry.method = entry.owned;
    if (rc == MB_OK)
        rc = mb_registry_add(&entry, err);
    if (rc == MB_OK)
        return rc;
    mb_fail_prefix(err, rc, "plug-in %s", path);
    free(entry.owned);
    free(entry.origin);
    if (entry.library)
        mb_registry_close_library(entry.library);
    return rc;
}

/* ---- folders ---- */

static int is_shared_object(const struct dirent *item)
{
    size_t n = strlen(item->d_name);
    return n > 3 && item->d_name[0] != '.' && strcmp(item->d_name + n - 3, ".so") == 0;
}

/* Byte order, so that the order of loading does not depend on the locale. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_folder(const char *folder, mb_error *err)
{
    struct dirent **items = NULL;
    int n = scandir(folder, &items, is_shared_object, by_name);
    if (n < 0)
        return mb_fail(err, MB_E_INPUT, "plug-in folder %s: cannot read it: %s", folder, strerror(errno));
    int rc = MB_OK;
    for (int i = 0; i < n; i++) {
        char *path = rc == MB_OK ? mb_string_format("%s/%s", folder, items[i]->d_name) : NULL;
        if (path)
            rc = mb_registry_load(path, err);
        else if (rc == MB_OK)
            rc = mb_no_memory(err, "the methods");
        free(path);
        free(items[i]);
    }
    free(items);
    return rc;
}

int mb_registry_load_path(const char *folders, mb_error *err)
{
    int rc = MB_OK;
    char *copy = mb_string_copy(folders ? folders : ""), *rest = copy;
    if (!copy)
        return mb_no_memory(err, "the methods");
    for (char *folder; rc == MB_OK && (folder = strsep(&rest, ":"));)
        if (*folder)
            rc = load_folder(folder, err);
    free(copy);
    return rc;
}
