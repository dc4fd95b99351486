/*
 * essays.c - long plain text that the user provides (a folder of essays), and cutting it into sentences.
 *
 * Files are joined in the order of their names' bytes: the original needle test took the order of the file system,
 * which differs between machines. Text that is no UTF-8 is refused, because a tokenizer would change it silently.
 */
#include "datasets/generate/generate.h"
#include "datasets/read/unicode.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX ((size_t)256 << 20)

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static int add_file(const char *path, mb_text *out, mb_hash *hash, mb_error *err)
{
    char *data = NULL;
    size_t size = 0;
    cJSON *root = NULL;
    int rc = mb_file_read(path, FILE_MAX, &data, &size, err);
    if (rc < 0)
        return rc;
    const char *text = data;
    size_t length = size;
    if (ends_with(path, ".json")) {
        root = cJSON_ParseWithLength(data, size);
        text = mb_json_string(root, "text");
        length = text ? strlen(text) : 0;
        if (!text) {
            rc = mb_fail(err, MB_E_INPUT, "%s: no JSON object with a member \"text\"", path);
            goto out;
        }
    }
    size_t bad = 0;
    if (!mb_utf8_check(text, length, &bad) || memchr(text, 0, length)) {
        rc = mb_fail(err, MB_E_INPUT, "%s: not UTF-8 text (byte %zu); convert it with iconv", path, bad);
        goto out;
    }
    mb_text_append(out, text, length);
    if (hash) {
        mb_hash_add(hash, &length, sizeof length);
        mb_hash_add(hash, text, length);
    }
out:
    cJSON_Delete(root);
    free(data);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of all *.txt of a folder, sorted. */
static int list_folder(const char *path, char ***names, size_t *count, mb_error *err)
{
    DIR *folder = opendir(path);
    size_t capacity = 0;
    int rc = MB_OK;
    *names = NULL;
    *count = 0;
    if (!folder)
        return mb_fail(err, MB_E_INPUT, "the folder %s cannot be read", path);
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.' || !ends_with(entry->d_name, ".txt"))
            continue;
        if (*count == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            char **more = realloc(*names, capacity * sizeof *more);
            if (!more) {
                rc = MB_E_SYSTEM;
                break;
            }
            *names = more;
        }
        (*names)[*count] = mb_string_copy(entry->d_name);
        if (!(*names)[*count]) {
            rc = MB_E_SYSTEM;
            break;
        }
        ++*count;
    }
    closedir(folder);
    if (rc < 0)
        return mb_fail(err, rc, "no memory for the file names of %s", path);
    if (*count)
        qsort(*names, *count, sizeof **names, by_name);
    return MB_OK;
}

int mb_essays_read(const char *path, mb_text *out, mb_hash *hash, mb_error *err)
{
    char command[MB_FETCH_CAP];
    mb_fetch_command("essays", command);
    if (mb_file_exists(path) && !mb_folder_exists(path)) {
        int rc = add_file(path, out, hash, err);
        if (rc == MB_OK && !out->length)
            rc = mb_fail(err, MB_E_INPUT, "%s holds no text", path);
        return rc;
    }
    if (!mb_folder_exists(path))
        return mb_fail(err, MB_E_INPUT, "no essays at %s: give a folder of .txt files, or run: %s", path, command);
    char **names = NULL;
    size_t count = 0;
    int rc = list_folder(path, &names, &count, err);
    for (size_t i = 0; i < count && rc == MB_OK; i++) {
        char *file = mb_string_format("%s/%s", path, names[i]);
        rc = file ? add_file(file, out, hash, err) : mb_no_memory(err, "the essays of %s", path);
        free(file);
    }
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
    if (rc == MB_OK && out->failed)
        rc = mb_no_memory(err, "the essays of %s", path);
    if (rc == MB_OK && !out->length)
        rc = mb_fail(err, MB_E_INPUT, "%s holds no .txt file with text; run: %s", path, command);
    return rc;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

size_t mb_text_squeeze(char *text, size_t length)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (!is_space(text[i]))
            text[n++] = text[i];
        else if (n && text[n - 1] != ' ')
            text[n++] = ' ';
    }
    if (n && text[n - 1] == ' ')
        n--;
    text[n] = '\0';
    return n;
}

/* Whether the full stop at text[dot] belongs to an abbreviation or to an initial ("Mr.", "J."). */
static bool is_abbreviation(const char *text, size_t start, size_t dot)
{
    static const char *const known[] = {"Mr",  "Mrs", "Ms",  "Dr",  "Prof", "St",  "Jr", "Sr",
                                        "vs",  "etc", "No",  "Vol", "Fig",  "Inc", "Co", "Corp",
                                        "Ltd", "e.g", "i.e", "cf",  "al",   "Gen", "Col"};
    size_t word = dot;
    while (word > start && !is_space(text[word - 1]) && text[word - 1] != '(')
        word--;
    size_t n = dot - word;
    if (n == 1 && text[word] >= 'A' && text[word] <= 'Z' && text[word] != 'I')
        return true;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == n && memcmp(known[i], text + word, n) == 0)
            return true;
    return false;
}

size_t mb_sentence_end(const char *text, size_t length, size_t start)
{
    for (size_t i = start; i < length; i++) {
        if (text[i] != '.' && text[i] != '!' && text[i] != '?')
            continue;
        size_t end = i + 1;
        while (end < length && (strchr(".!?\"')]", text[end]) != NULL && text[end]))
            end++;
        if (end + 3 <= length && memcmp(text + end, "\xe2\x80\x9d", 3) == 0) /* a closing curly quote */
            end += 3;
        size_t next = end;
        while (next < length && is_space(text[next]))
            next++;
        if (next == length)
            return length;
        bool lower = text[next] >= 'a' && text[next] <= 'z';
        if (next > end && !lower && !(text[i] == '.' && is_abbreviation(text, start, i)))
            return end;
    }
    return length;
}
