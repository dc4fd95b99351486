/*
 * jieba_table.c - finding and reading jieba's dictionary. The dictionary is 5 MB and belongs to its package, so it
 * is not part of this repository: Debian and Ubuntu ship it with the HMM tables in python3-jieba.
 *
 * Looked for, in this order: $MASKBENCH_JIEBA_DICT alone where it is set (a folder with dict.txt, or a dict.txt),
 * datasets/data/jieba, the folders of the distribution's and of pip's package.
 */
#include "datasets/metric/jieba_table.h"

#include <glob.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

const mb_jieba_entry *mb_jieba_find(const mb_jieba *jieba, const uint32_t *at, size_t count, uint64_t hash)
{
    for (size_t i = hash & (jieba->capacity - 1); jieba->places[i].length; i = (i + 1) & (jieba->capacity - 1)) {
        const mb_jieba_entry *e = &jieba->places[i];
        if (e->hash == hash && e->length == count &&
            memcmp(jieba->arena.at + e->offset, at, count * sizeof *at) == 0)
            return e;
    }
    return NULL;
}

static bool places_grow(mb_jieba *jieba)
{
    size_t capacity = jieba->capacity ? jieba->capacity * 2 : (size_t)1 << 20;
    mb_jieba_entry *places = calloc(capacity, sizeof *places);
    if (!places)
        return false;
    for (size_t i = 0; i < jieba->capacity; i++) {
        if (!jieba->places[i].length)
            continue;
        size_t j = jieba->places[i].hash & (capacity - 1);
        while (places[j].length)
            j = (j + 1) & (capacity - 1);
        places[j] = jieba->places[i];
    }
    free(jieba->places);
    jieba->places = places;
    jieba->capacity = capacity;
    return true;
}

/* Finds or adds the word whose runes are arena[offset .. offset + length). NULL: out of memory. */
static mb_jieba_entry *entry_put(mb_jieba *jieba, uint32_t offset, uint32_t length, uint64_t hash)
{
    if (jieba->used >= jieba->capacity / 4 * 3 && !places_grow(jieba))
        return NULL;
    const mb_jieba_entry *found = mb_jieba_find(jieba, jieba->arena.at + offset, length, hash);
    if (found)
        return &jieba->places[found - jieba->places];
    size_t i = hash & (jieba->capacity - 1);
    while (jieba->places[i].length)
        i = (i + 1) & (jieba->capacity - 1);
    jieba->places[i] = (mb_jieba_entry){.hash = hash, .offset = offset, .length = length};
    jieba->used++;
    return &jieba->places[i];
}

/* One word and every beginning of it. A word listed twice keeps its last frequency, as in a Python dict. */
static bool word_add(mb_jieba *jieba, const char *word, size_t bytes, int64_t frequency)
{
    size_t offset = jieba->arena.count;
    uint64_t hash = 0;
    mb_runes_decode(&jieba->arena, word, bytes);
    size_t length = jieba->arena.count - offset;
    if (jieba->arena.failed || offset + length > UINT32_MAX)
        return false;
    for (size_t n = 1; n <= length; n++) {
        hash = mb_jieba_hash(hash, jieba->arena.at[offset + n - 1]);
        mb_jieba_entry *e = entry_put(jieba, (uint32_t)offset, (uint32_t)n, hash);
        if (!e)
            return false;
        if (n == length)
            e->frequency = frequency;
    }
    return true;
}

/* Lines of "word frequency [tag]". */
static int dictionary_load(mb_jieba *jieba, const char *path, mb_error *err)
{
    char *text = NULL;
    size_t size = 0;
    long long line = 0, total = 0;
    int rc = mb_file_read(path, 256u << 20, &text, &size, err);
    if (rc != MB_OK)
        return rc;
    if (!places_grow(jieba))
        rc = mb_no_memory(err, "the dictionary %s", path);
    for (char *p = text; rc == MB_OK && *p;) {
        char *end = p + strcspn(p, "\r\n");
        char *blank = memchr(p, ' ', (size_t)(end - p));
        char *after = NULL;
        line++;
        if (end > p) {
            long long frequency = blank ? strtoll(blank + 1, &after, 10) : 0;
            if (!blank || after == blank + 1 || frequency < 0 || (after < end && *after != ' ')) {
                rc = mb_fail(err, MB_E_INPUT, "%s:%lld: a line is \"word frequency\"", path, line);
                break;
            }
            if (!word_add(jieba, p, (size_t)(blank - p), frequency))
                rc = mb_no_memory(err, "the dictionary %s", path);
            total += frequency;
        }
        p = end + (*end == '\r' && end[1] == '\n' ? 2 : *end != '\0');
    }
    if (rc == MB_OK && total <= 0)
        rc = mb_fail(err, MB_E_INPUT, "%s holds no word", path);
    jieba->log_total = log((double)total);
    free(text);
    return rc;
}

void mb_jieba_unload(mb_jieba *jieba)
{
    free(jieba->places);
    free(jieba->hmm.emit);
    mb_runes_free(&jieba->arena);
    *jieba = (mb_jieba){0};
}

int mb_jieba_load(mb_jieba *jieba, const char *path, mb_error *err)
{
    *jieba = (mb_jieba){0};
    bool folder = mb_folder_exists(path);
    char *file = folder ? mb_string_format("%s/dict.txt", path) : mb_string_copy(path);
    char *home = mb_string_copy(folder ? path : ".");
    int rc = MB_OK;
    const char *slash = strrchr(path, '/');
    if (!folder && slash) {
        free(home);
        home = mb_string_format("%.*s", (int)(slash - path), path);
    }
    if (!file || !home)
        rc = mb_no_memory(err, "reading %s", path);
    if (rc == MB_OK)
        rc = dictionary_load(jieba, file, err);
    if (rc == MB_OK)
        rc = mb_hmm_load(&jieba->hmm, home, err);
    free(file);
    free(home);
    if (rc != MB_OK)
        mb_jieba_unload(jieba);
    return rc;
}

/* ---- the one loaded copy ---- */
static pthread_once_t loaded_once = PTHREAD_ONCE_INIT;
static mb_jieba loaded;
static bool is_loaded;
static mb_error why_not;

/* Loads from the first folder of a pattern that has a dictionary. True: found one (loaded or not). */
static bool pattern_load(const char *pattern)
{
    glob_t found;
    bool any = false;
    if (glob(pattern, 0, NULL, &found) != 0)
        return false;
    for (size_t i = 0; i < found.gl_pathc && !any; i++) {
        char *file = mb_string_format("%s/dict.txt", found.gl_pathv[i]);
        if (file && mb_file_exists(file)) {
            any = true;
            is_loaded = mb_jieba_load(&loaded, found.gl_pathv[i], &why_not) == MB_OK;
        }
        free(file);
    }
    globfree(&found);
    return any;
}

static void load_once(void)
{
    static const char *const patterns[] = {
        "datasets/data/jieba",
        "/usr/lib/python3/dist-packages/jieba",
        "/usr/local/lib/python3*/dist-packages/jieba",
        "/usr/local/lib/python3*/site-packages/jieba",
    };
    mb_text looked = {0};
    const char *chosen = getenv("MASKBENCH_JIEBA_DICT");
    if (chosen && *chosen) {
        is_loaded = mb_jieba_load(&loaded, chosen, &why_not) == MB_OK;
        if (!is_loaded)
            mb_fail_prefix(&why_not, 0, "MASKBENCH_JIEBA_DICT");
        return;
    }
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        if (pattern_load(patterns[i])) {
            mb_text_free(&looked);
            return;
        }
        mb_text_printf(&looked, "%s%s", i ? ", " : "", patterns[i]);
    }
    mb_fail(
        &why_not, 0,
        "Chinese words need jieba's dictionary and none is in %s; `apt-get install python3-jieba` provides it, "
        "or MASKBENCH_JIEBA_DICT names a folder with dict.txt and finalseg/",
        looked.data ? looked.data : "the usual folders");
    mb_text_free(&looked);
}

const mb_jieba *mb_jieba_tables(mb_error *err)
{
    pthread_once(&loaded_once, load_once);
    if (is_loaded)
        return &loaded;
    mb_fail(err, MB_E_SAMPLE, "%s", why_not.text);
    return NULL;
}
