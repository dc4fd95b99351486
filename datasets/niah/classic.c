/*
 * classic.c - the original needle test (gkamradt/LLMTest_NeedleInAHaystack): essays, the San Francisco
 * needle, insertion on token ids at the last full stop before the depth.
 *
 * Two differences, both documented: essays are joined in the order of their names, and the buffer that the
 * original keeps (200 tokens) is what the wrapper, the question and the new tokens really need.
 */
#include "datasets/niah/niah.h"

#include <stdlib.h>
#include <string.h>

#define ROUNDS 12

int mb_niah_classic_open(mb_niah *niah, mb_error *err)
{
    static const char *const layouts[] = {"messages", "book", NULL};
    const char *folder = NULL;
    char *path = NULL;
    niah->layout = "messages";
    niah->asked = 1;
    int rc = mb_task_keys_string(&niah->options, "prompt", layouts, &niah->layout, err);
    if (rc == MB_OK)
        rc = mb_task_keys_string(&niah->options, "haystack", NULL, &folder, err);
    if (rc < 0)
        return rc;
    /* The path given, the data folder's essays, or where fetch.sh puts them. */
    path =
        folder ? mb_string_copy(folder) : mb_string_format("%s/essays", niah->kind ? niah->kind : "datasets/data");
    if (path && !folder && !mb_folder_exists(path) && mb_folder_exists("datasets/data/essays")) {
        free(path);
        path = mb_string_copy("datasets/data/essays");
    }
    mb_hash *hash = mb_hash_new();
    if (!path || !hash)
        rc = mb_no_memory(err, "task %s", niah->row->name);
    else
        rc = mb_essays_read(path, &niah->essays, hash, err);
    if (hash)
        mb_hash_end(hash, niah->essay_hash);
    free(path);
    return rc;
}

/* Encodes the essays, again and again until they cover `need` tokens. Ids are kept for all samples. */
static int encode_essays(mb_niah *niah, size_t need, mb_error *err)
{
    if (niah->essay_count >= need)
        return MB_OK;
    const mb_codec *codec = niah->codec;
    size_t count = 0;
    int64_t once = mb_codec_count(codec, niah->essays.data, niah->essays.length, err);
    if (once < 0)
        return (int)once;
    if (once == 0)
        return mb_fail(err, MB_E_INPUT, "the essays of task %s are empty", niah->row->name);
    if (!niah->stop_ids && codec->encode(codec->self, ".", 1, &niah->stop_ids, &niah->stop_count) < 0)
        return mb_fail(err, MB_E_SYSTEM, "the full stop could not be encoded");
    /* One encoding of the repeated text, as the original does it: tokens may merge at the joints, so that the
     * copies have fewer tokens than copies * once; half of them are certain. */
    for (size_t copies = need / (size_t)once + 1, tries = 0; count < need && tries < 2; copies *= 2, tries++) {
        mb_text text = {0};
        for (size_t i = 0; i < copies; i++)
            mb_text_append(&text, niah->essays.data, niah->essays.length);
        free(niah->essay_ids);
        niah->essay_ids = NULL;
        niah->essay_count = count = 0;
        int rc = text.failed ? MB_E_SYSTEM
                             : codec->encode(codec->self, text.data, text.length, &niah->essay_ids, &count);
        mb_text_free(&text);
        if (rc < 0)
            return mb_fail(err, rc, "the essays of task %s could not be encoded", niah->row->name);
        niah->essay_count = count;
    }
    return count >= need ? MB_OK
                         : mb_fail(err, MB_E_INPUT, "the essays of task %s are too short", niah->row->name);
}

static bool is_stop(const mb_niah *niah, int32_t id)
{
    for (size_t i = 0; i < niah->stop_count; i++)
        if (niah->stop_ids[i] == id)
            return true;
    return false;
}

/* n essay tokens with the needle's between them, as text. */
static int lay_out(const mb_niah *niah, size_t n, double depth, const int32_t *needle, size_t needle_count,
                   char **text, mb_error *err)
{
    size_t at = n;
    if (depth < 100) {
        at = (size_t)((double)n * (depth / 100));
        while (at > 0 && !is_stop(niah, niah->essay_ids[at - 1]))
            at--;
    }
    int32_t *ids = malloc((n + needle_count + 1) * sizeof *ids);
    if (!ids)
        return mb_no_memory(err, "%zu tokens", n);
    memcpy(ids, niah->essay_ids, at * sizeof *ids);
    memcpy(ids + at, needle, needle_count * sizeof *ids);
    memcpy(ids + at + needle_count, niah->essay_ids + at, (n - at) * sizeof *ids);
    int rc = niah->codec->decode(niah->codec->self, ids, n + needle_count, text);
    free(ids);
    return rc < 0 ? mb_fail(err, rc, "%zu tokens of essays could not be decoded", n) : MB_OK;
}

static void write_prompt(const mb_niah *niah, const cJSON *classic, const char *haystack, mb_text *out)
{
    const char *layout = mb_json_string(classic, niah->layout);
    const mb_prompt_pair parts[] = {{"haystack", haystack}, {"question", mb_json_string(classic, "question")}};
    mb_text_clear(out);
    mb_prompt_fill(out, layout, strlen(layout), parts, 2, false);
}

/* The prompt nearest to `limit` tokens from below into best. n: tokens of essays to begin with. Its tokens, 0 =
 * none fits, or a negative code. */
static int64_t fit(const mb_niah *niah, const mb_niah_cell *cell, const int32_t *needle, size_t needle_count,
                   int64_t n, mb_text *best, mb_error *err)
{
    const cJSON *classic = mb_json_member(niah->prompts, "classic");
    const int64_t limit = cell->length - niah->max_new_tokens;
    mb_text prompt = {0};
    int64_t best_tokens = 0, tokens = 0;
    for (size_t round = 0; round < ROUNDS && n > 0; round++) {
        char *text = NULL;
        if (n > (int64_t)niah->essay_count)
            n = (int64_t)niah->essay_count;
        int rc = lay_out(niah, (size_t)n, cell->depth, needle, needle_count, &text, err);
        if (rc == MB_OK)
            write_prompt(niah, classic, text, &prompt);
        free(text);
        tokens = rc < 0 ? rc : mb_codec_measure(niah->codec, niah->overhead, prompt.data, prompt.length, "", err);
        if (tokens < 0)
            break;
        if (tokens <= limit && tokens > best_tokens) {
            mb_text keep = *best;
            *best = prompt;
            prompt = keep;
            best_tokens = tokens;
        }
        /* Decoding and encoding again may merge tokens: give the difference to the essays. */
        if (tokens == limit || (round && tokens < limit && limit - tokens <= 2))
            break;
        n += limit - tokens;
    }
    mb_text_free(&prompt);
    return tokens < 0 ? tokens : best_tokens;
}

int mb_niah_classic_build(mb_niah *niah, const mb_niah_cell *cell, mb_sample *sample, mb_error *err)
{
    const cJSON *classic = mb_json_member(niah->prompts, "classic");
    const char *wording = mb_json_string(classic, "needle"), *answer = mb_json_string(classic, "answer");
    const int64_t limit = cell->length - niah->max_new_tokens;
    int32_t *needle = NULL;
    size_t needle_count = 0;
    mb_text prompt = {0}, best = {0};
    int rc = encode_essays(niah, (size_t)cell->length, err);
    if (rc == MB_OK &&
        niah->codec->encode(niah->codec->self, wording, strlen(wording), &needle, &needle_count) < 0)
        rc = mb_fail(err, MB_E_SYSTEM, "the needle could not be encoded");
    if (rc < 0)
        goto out;
    write_prompt(niah, classic, "", &prompt);
    int64_t frame =
        mb_codec_measure(niah->codec, niah->overhead, prompt.data ? prompt.data : "", prompt.length, "", err);
    int64_t n = limit - frame - (int64_t)needle_count;
    if (frame < 0)
        rc = (int)frame;
    else if (n < 1)
        rc = mb_fail(
            err, MB_E_SAMPLE,
            "sample %s: %d tokens cannot hold the question, the needle (%lld tokens) and %lld new tokens; "
            "ask for a longer context",
            cell->key, cell->length, (long long)(frame + (int64_t)needle_count), (long long)niah->max_new_tokens);
    if (rc < 0)
        goto out;
    int64_t tokens = fit(niah, cell, needle, needle_count, n, &best, err);
    if (tokens < 0)
        rc = (int)tokens;
    else if (tokens == 0)
        rc = mb_fail(err, MB_E_SAMPLE, "sample %s: no cut of the essays fits %d tokens", cell->key, cell->length);
    if (rc < 0)
        goto out;
    sample->prompt = mb_text_take(&best);
    sample->length = tokens;
    bool good = sample->prompt && mb_sample_add_answer(sample, answer, strlen(answer));
    for (const cJSON *word = mb_json_member(classic, "keywords")->child; word && good; word = word->next)
        good = mb_sample_add_class(sample, word->valuestring, strlen(word->valuestring));
    if (!good)
        rc = mb_no_memory(err, "sample %s", cell->key);
out:
    free(needle);
    mb_text_free(&prompt);
    mb_text_free(&best);
    return rc;
}
