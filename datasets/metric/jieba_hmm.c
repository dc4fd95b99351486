/*
 * jieba_hmm.c - the hidden Markov model for words that are in no dictionary: every character is the Beginning,
 * Middle or End of a word or a Single one. Viterbi over log-probabilities; and the reader of its three tables,
 * which come as Python literals (prob_start.py, ...) or as one JSON file.
 */
#include "datasets/metric/jieba_hmm.h"

#include "datasets/read/unicode.h"

#include <stdlib.h>
#include <string.h>

bool mb_hmm_decode(const mb_hmm *hmm, const uint32_t *at, size_t count, unsigned char *states)
{
    /* Which states may stand before a state, the larger letter first. */
    static const unsigned char before[MB_HMM_STATES][2] = {
        [MB_HMM_B] = {MB_HMM_S, MB_HMM_E},
        [MB_HMM_M] = {MB_HMM_M, MB_HMM_B},
        [MB_HMM_S] = {MB_HMM_S, MB_HMM_E},
        [MB_HMM_E] = {MB_HMM_M, MB_HMM_B},
    };
    if (!count)
        return true;
    unsigned char(*from)[MB_HMM_STATES] = malloc(count * sizeof *from);
    if (!from)
        return false;
    double value[MB_HMM_STATES], next[MB_HMM_STATES];
    for (int s = 0; s < MB_HMM_STATES; s++)
        value[s] = hmm->start[s] + hmm->emit[at[0] - MB_HAN_FIRST][s];
    for (size_t t = 1; t < count; t++) {
        const double *emit = hmm->emit[at[t] - MB_HAN_FIRST];
        for (int s = 0; s < MB_HMM_STATES; s++) {
            int high = before[s][0], low = before[s][1];
            double by_high = value[high] + hmm->trans[high][s] + emit[s];
            double by_low = value[low] + hmm->trans[low][s] + emit[s];
            bool take_low = by_low > by_high;
            next[s] = take_low ? by_low : by_high;
            from[t][s] = (unsigned char)(take_low ? low : high);
        }
        memcpy(value, next, sizeof value);
    }
    unsigned char state = value[MB_HMM_E] > value[MB_HMM_S] ? MB_HMM_E : MB_HMM_S;
    for (size_t t = count; t-- > 0;) {
        states[t] = state;
        if (t)
            state = from[t][state];
    }
    free(from);
    return true;
}

/* ---- reading the tables ---- */
/* One number with the keys above it: a nested dictionary of strings to numbers, Python or JSON spelling. */
typedef struct reader {
    const char *p;
    mb_hmm *hmm;
    int table;        /* 0 start, 1 trans, 2 emit; -1: the outermost key tells */
    uint32_t keys[4]; /* first rune of each key; for the outermost JSON keys 's', 't', 'e' */
} reader;

static void blanks_skip(reader *r)
{
    r->p += strspn(r->p, " \t\r\n");
}

static int state_of(uint32_t letter)
{
    switch (letter) {
    case 'B':
        return MB_HMM_B;
    case 'E':
        return MB_HMM_E;
    case 'M':
        return MB_HMM_M;
    case 'S':
        return MB_HMM_S;
    default:
        return -1;
    }
}

static bool number_store(reader *r, int depth, double value)
{
    const uint32_t *keys = r->keys;
    int table = r->table;
    if (table < 0) {
        table = keys[0] == 's' ? 0 : keys[0] == 't' ? 1 : 2;
        keys++;
        depth--;
    }
    int first = depth > 0 ? state_of(keys[0]) : -1;
    if (first < 0 || depth != (table == 0 ? 1 : 2))
        return false;
    if (table == 0) {
        r->hmm->start[first] = value;
    } else if (table == 1) {
        int second = state_of(keys[1]);
        if (second < 0)
            return false;
        r->hmm->trans[first][second] = value;
    } else if (keys[1] >= MB_HAN_FIRST && keys[1] <= MB_HAN_LAST) { /* others are never asked for */
        r->hmm->emit[keys[1] - MB_HAN_FIRST][first] = value;
    }
    return true;
}

/* A quoted key: only its first rune matters. */
static bool key_read(reader *r, uint32_t *key)
{
    char quote = *r->p, hex[5] = "";
    if (quote != '\'' && quote != '"')
        return false;
    r->p++;
    if (r->p[0] == '\\' && r->p[1] == 'u' && strspn(r->p + 2, "0123456789abcdefABCDEF") >= 4) {
        memcpy(hex, r->p + 2, 4);
        *key = (uint32_t)strtoul(hex, NULL, 16);
    } else {
        mb_runes runes = {0};
        mb_runes_decode(&runes, r->p, strnlen(r->p, 4));
        *key = runes.count ? runes.at[0] : 0;
        mb_runes_free(&runes);
    }
    r->p = strchr(r->p, quote);
    if (!r->p)
        return false;
    r->p++;
    return true;
}

static bool dictionary_read(reader *r, int depth)
{
    if (*r->p != '{' || depth >= 3)
        return false;
    r->p++;
    for (;;) {
        blanks_skip(r);
        if (*r->p == '}') {
            r->p++;
            return true;
        }
        if (!key_read(r, &r->keys[depth]))
            return false;
        blanks_skip(r);
        if (*r->p++ != ':')
            return false;
        blanks_skip(r);
        if (*r->p == '{') {
            if (!dictionary_read(r, depth + 1))
                return false;
        } else {
            char *end;
            double value = strtod(r->p, &end);
            if (end == r->p || !number_store(r, depth + 1, value))
                return false;
            r->p = end;
        }
        blanks_skip(r);
        if (*r->p == ',')
            r->p++;
        else if (*r->p != '}')
            return false;
    }
}

static int table_read(mb_hmm *hmm, const char *path, int table, mb_error *err)
{
    char *text = NULL;
    size_t size;
    int rc = mb_file_read(path, 64u << 20, &text, &size, err);
    if (rc != MB_OK)
        return rc;
    reader r = {.p = strchr(text, '{'), .hmm = hmm, .table = table};
    if (!r.p || !dictionary_read(&r, 0))
        rc = mb_fail(err, MB_E_INPUT, "%s is no table of probabilities as jieba writes it", path);
    free(text);
    return rc;
}

int mb_hmm_load(mb_hmm *hmm, const char *folder, mb_error *err)
{
    static const char *const subfolders[] = {"/finalseg", ""};
    static const char *const files[] = {"prob_start.py", "prob_trans.py", "prob_emit.py"};
    int rc = MB_E_INPUT;
    hmm->emit = malloc(MB_HAN_COUNT * sizeof *hmm->emit);
    char *path = mb_string_format("%s/hmm.json", folder);
    if (!hmm->emit || !path) {
        rc = mb_no_memory(err, "the tables of %s", folder);
        goto out;
    }
    for (int s = 0; s < MB_HMM_STATES; s++) {
        hmm->start[s] = MB_HMM_NEVER;
        for (int t = 0; t < MB_HMM_STATES; t++)
            hmm->trans[s][t] = MB_HMM_NEVER;
        for (size_t i = 0; i < MB_HAN_COUNT; i++)
            hmm->emit[i][s] = MB_HMM_NEVER;
    }
    if (mb_file_exists(path)) {
        rc = table_read(hmm, path, -1, err);
        goto out;
    }
    for (int place = 0; place < 2; place++) {
        for (int i = 0; i < 3; i++) {
            free(path);
            path = mb_string_format("%s%s/%s", folder, subfolders[place], files[i]);
            if (!path) {
                rc = mb_no_memory(err, "the tables of %s", folder);
                goto out;
            }
            if (!mb_file_exists(path)) {
                rc = mb_fail(err, MB_E_INPUT, "%s has dict.txt but neither hmm.json nor finalseg/%s", folder,
                             files[i]);
                break;
            }
            rc = table_read(hmm, path, i, err);
            if (rc != MB_OK)
                goto out;
        }
        if (rc == MB_OK)
            break;
    }
out:
    free(path);
    return rc;
}
