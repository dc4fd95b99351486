/*
 * test_ruler.c - the 13 RULER tasks: lengths, structure as RULER describes the official files,
 * determinism, refusals. Scores are in test_ruler_score.c.
 */
#include "datasets/generate/generate.h"
#include "tests/datasets/codecs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static word_list *list;
static mb_codec codecs[3];
static mb_error err;
static char folder[] = "/tmp/ruler-data-XXXXXX", squad[64], hotpot[64];

#define NOISE "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
#define SQUAD_DOCUMENTS 40
#define HOTPOT_ROWS 3

/* Forty paragraphs in four articles, one question each; the second is impossible. Three Hotpot rows of four. */
static int set_up(void **state)
{
    mb_text text = {0};
    (void)state;
    list = calloc(1, sizeof *list);
    codecs[0] = (mb_codec){.self = list, .encode = words_encode, .decode = words_decode};
    codecs[1] = (mb_codec){.encode = bytes_encode, .decode = bytes_decode};
    codecs[2] = (mb_codec){.encode = chunks_encode, .decode = chunks_decode};
    if (!mkdtemp(folder))
        return 1;
    snprintf(squad, sizeof squad, "%s/dev-v2.0.json", folder);
    snprintf(hotpot, sizeof hotpot, "%s/hotpot_dev_distractor_v1.json", folder);
    mb_text_puts(&text, "{\"version\":\"v2.0\",\"data\":[");
    for (int i = 0; i < SQUAD_DOCUMENTS; i++) {
        if (i % 10 == 0)
            mb_text_printf(&text, "%s{\"title\":\"Article %d\",\"paragraphs\":[", i ? "]}," : "", i / 10);
        mb_text_printf(
            &text,
            "%s{\"context\":\"Paragraph %c%c of article %d tells of the mill at Niederau and its %d "
            "wheels.\",\"qas\":[{\"question\":\"How many wheels has mill %d?\",\"is_impossible\":%s,"
            "\"answers\":[{\"text\":\"%d\",\"answer_start\":1},{\"text\":\"%d\",\"answer_start\":1}]}]}",
            i % 10 ? "," : "", 'a' + i / 26, 'a' + i % 26, i / 10, 100 + i, i, i == 1 ? "true" : "false", 100 + i,
            100 + i);
    }
    mb_text_puts(&text, "]}]}");
    int rc = mb_file_write(squad, text.data, text.length, &err);
    mb_text_clear(&text);
    for (int i = 0; i < HOTPOT_ROWS; i++) {
        mb_text_printf(
            &text, "%s{\"_id\":\"%d\",\"question\":\"Who built bridge %d?\",\"answer\":\"Mason %d\",\"context\":[",
            i ? "," : "[", i, i, i);
        for (int p = 0; p < 4; p++)
            mb_text_printf(&text,
                           "%s[\"Title %d.%d\",[\"The first sentence. \",\"Bridge %d was built by Mason %d.\"]]",
                           p ? "," : "", i, p, i, i);
        mb_text_puts(&text, "]}");
    }
    mb_text_puts(&text, "]");
    rc |= mb_file_write(hotpot, text.data, text.length, &err);
    mb_text_free(&text);
    return rc;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(squad);
    unlink(hotpot);
    rmdir(folder);
    words_free(list);
    return 0;
}

static mb_task *open_task(const char *name, const char *options, uint64_t seed, const mb_codec *codec)
{
    const mb_task_request request = {
        .task = name, .seed = seed, .codec = codec, .options = options, .folder = folder, .prompt_overhead = 9};
    mb_task *task = NULL;
    if (mb_task_open(&task, &request, &err) != MB_OK)
        fail_msg("%s", err.text);
    return task;
}

static mb_sample *next(mb_task *task)
{
    mb_sample *sample = NULL;
    int rc = mb_task_next(task, &sample, &err);
    if (rc < 0)
        fail_msg("%s", err.text);
    return rc == 1 ? sample : NULL;
}

static mb_sample *first(const char *name, const char *options, uint64_t seed)
{
    mb_task *task = open_task(name, options, seed, &codecs[0]);
    mb_sample *sample = next(task);
    mb_task_close(task);
    assert_non_null(sample);
    return sample;
}

static size_t count_of(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *c = text; (c = strstr(c, what)); c += strlen(what))
        n++;
    return n;
}

static const struct {
    const char *name;
    int32_t new_tokens;
    int64_t unit_words, unit_bytes; /* one filler unit at most, in tokens of codecs 0 and 1 */
} tasks[] = {
    {"ruler_niah_single_1", 128, 30, 92},
    {"ruler_niah_single_2", 128, 3, 30},
    {"ruler_niah_single_3", 128, 3, 30},
    {"ruler_niah_multikey_1", 128, 3, 30},
    {"ruler_niah_multikey_2", 128, 40, 120},
    {"ruler_niah_multikey_3", 128, 140, 140},
    {"ruler_niah_multivalue", 128, 3, 30},
    {"ruler_niah_multiquery", 128, 3, 30},
    {"ruler_vt", 30, 30, 92},
    {"ruler_cwe", 120, 30, 90},
    {"ruler_fwe", 50, 14, 28},
    {"ruler_qa_1", 32, 40, 120},
    {"ruler_qa_2", 32, 40, 120},
};

static void test_lengths(void **state)
{
    (void)state;
    static const int32_t lengths[] = {2000, 4096, 5001};
    for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++)
        for (size_t c = 0; c < 3; c++)
            for (size_t l = 0; l < 3; l++) {
                int32_t length = lengths[l] * (c == 1 ? 4 : c == 2 ? 2 : 1);
                char options[128];
                snprintf(options, sizeof options, "{\"lengths\":[%d],\"samples\":3}", length);
                mb_task *task = open_task(tasks[t].name, options, l + 1, &codecs[c]);
                assert_int_equal(mb_task_size(task), 3);
                for (mb_sample *s; (s = next(task)); mb_sample_free(s)) {
                    int64_t tokens =
                        9 + count_tokens(&codecs[c], s->prompt) + count_tokens(&codecs[c], s->answer_prefix);
                    int64_t gap = length - tasks[t].new_tokens - tokens;
                    int64_t unit = c == 0   ? tasks[t].unit_words
                                   : c == 1 ? tasks[t].unit_bytes
                                            : tasks[t].unit_bytes / 3 + 4;
                    assert_int_equal(tokens, s->length);
                    assert_int_equal(s->max_new_tokens, tasks[t].new_tokens);
                    assert_int_equal(s->context, length);
                    if (gap < 0 || gap >= unit)
                        fail_msg("%s, codec %zu, length %d: %d tokens miss", tasks[t].name, c, length, (int)gap);
                }
                mb_task_close(task);
            }
}

/* Checks that text starts and ends with the given strings. */
static void assert_frame(const char *text, const char *start, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    if (strncmp(text, start, strlen(start)) != 0)
        fail_msg("\"%.200s\" does not start with \"%s\"", text, start);
    if (n < m || strcmp(text + n - m, end) != 0)
        fail_msg("\"%s\" does not end with \"%s\"", n > 200 ? text + n - 200 : text, end);
}

static void test_niah(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t needles, answers; /* sentences of the needle form, outside haystacks of needles */
        bool uuid_key, uuid_value, lines;
    } cases[] = {
        {"ruler_niah_single_1", 1, 1, false, false, true},    {"ruler_niah_single_2", 1, 1, false, false, false},
        {"ruler_niah_single_3", 1, 1, false, true, false},    {"ruler_niah_multikey_1", 4, 1, false, false, false},
        {"ruler_niah_multikey_2", 0, 1, false, false, true},  {"ruler_niah_multikey_3", 0, 1, true, true, true},
        {"ruler_niah_multivalue", 4, 4, false, false, false}, {"ruler_niah_multiquery", 4, 4, false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mb_sample *s = first(cases[i].name, "{\"lengths\":[4096]}", 2);
        bool one = cases[i].answers == 1;
        const char *type = cases[i].uuid_value ? "uuid" : "number";
        char start[256], line[512], query[256] = "";
        snprintf(start, sizeof start,
                 one ? "A special magic %s is hidden within the following text. Make sure to "
                       "memorize it. I will quiz you about the %s afterwards.\n"
                     : "Some special magic %ss are hidden within "
                       "the following text. Make sure to memorize it. I will quiz you about the %ss afterwards.\n",
                 type, type);
        const char *question =
            strstr(s->prompt, one ? "\nWhat is the special magic " : "\nWhat are all the special magic ");
        assert_non_null(question);
        const char *keys = strstr(question, " for ") + 5, *stop = strstr(keys, " mentioned in the provided text?");
        snprintf(query, sizeof query, "%.*s", (int)(stop - keys), keys);
        snprintf(line, sizeof line,
                 one ? "\nWhat is the special magic %s for %s mentioned in the provided text?"
                     : "\nWhat are all the special magic %ss for %s mentioned in the provided text?",
                 type, query);
        assert_frame(s->prompt, start, line);
        snprintf(line, sizeof line,
                 one ? " The special magic %s for %s mentioned in the provided text is"
                     : " The special magic %ss for %s mentioned in the provided text are",
                 type, query);
        assert_string_equal(s->answer_prefix, line);
        assert_int_equal(s->answer_count, cases[i].answers);
        for (size_t a = 0; a < s->answer_count; a++) {
            assert_int_equal(strlen(s->answers[a]), cases[i].uuid_value ? 36 : 7);
            assert_int_equal(count_of(s->prompt, s->answers[a]), 1);
        }
        assert_int_equal(strlen(query) == 36, cases[i].uuid_key);
        size_t needles = count_of(s->prompt, "One of the special magic ");
        if (cases[i].needles)
            assert_int_equal(needles, cases[i].needles);
        else
            assert_true(needles > 40);
        /* One key asked for: its needle with the answer is in the text. */
        if (one)
            snprintf(line, sizeof line, "One of the special magic %ss for %s is: %s.", type, query, s->answers[0]);
        else if (i == 6)
            snprintf(line, sizeof line, "One of the special magic %ss for %s is: %s.", type, query, s->answers[3]);
        else {
            char key[64];
            assert_int_equal(count_of(query, ", "), 3);
            assert_int_equal(count_of(query, ", and "), 1);
            sscanf(strstr(query, ", and ") + 6, "%63s", key);
            snprintf(line, sizeof line, "One of the special magic %ss for %s is: %s.", type, key, s->answers[3]);
        }
        assert_int_equal(count_of(s->prompt, line), 1);
        const char *at = strstr(s->prompt, line);
        assert_int_equal(at[-1], cases[i].lines ? '\n' : ' ');
        if (cases[i].lines) /* a haystack of lines: the line feed ends the needle's line too */
            assert_int_equal(at[strlen(line)], '\n');
        if (i == 0) { /* nothing but noise lines and the needle's line */
            const char *body = s->prompt + strlen(start);
            size_t noise = count_of(body, NOISE "\n");
            assert_int_equal((size_t)(question + 1 - body), noise * strlen(NOISE "\n") + strlen(line) + 1);
        }
        mb_sample_free(s);
    }
}

/* The chain in the text: first assigns the value, each next one the variable before it; nothing else. */
static void check_chain(const char *text, const char *end, size_t letters, const char *value, char *const *names)
{
    char line[128];
    const char *at = strstr(text, "VAR ");
    for (size_t i = 0; i < 5; i++) {
        assert_non_null(at);
        assert_true(at < end);
        if (i)
            snprintf(line, sizeof line, "VAR %s = VAR %s \n", names[i], names[i - 1]);
        else
            snprintf(line, sizeof line, "VAR %s = %s\n", names[i], value);
        assert_int_equal(strlen(names[i]), letters);
        assert_int_equal(strncmp(at, line, strlen(line)), 0);
        at = strstr(at + strlen(line), "VAR ");
    }
    assert_true(!at || at >= end);
}

static void test_vt(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 6; seed++) {
        mb_sample *s = first("ruler_vt", "{\"lengths\":[4096]}", seed);
        char value[16], example_value[16], names[5][8], line[256], *example[5];
        const char *second =
            strstr(s->prompt + 5, "Memorize and track the chain(s) of variable assignment hidden in "
                                  "the following text.\n\n");
        assert_non_null(second);
        const char *question = strstr(second, "\nQuestion: Find all variables that are assigned the value ");
        assert_int_equal(
            sscanf(question, "\nQuestion: Find all variables that are assigned the value %15[0-9] in", value), 1);
        snprintf(line, sizeof line,
                 "\nQuestion: Find all variables that are assigned the value %s in the text above.", value);
        assert_frame(s->prompt,
                     "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n",
                     line);
        snprintf(line, sizeof line,
                 " Answer: According to the chain(s) of variable assignment in the text above, 5 "
                 "variables are assigned the value %s, they are: ",
                 value);
        assert_string_equal(s->answer_prefix, line);
        assert_int_equal(s->answer_count, 5);
        check_chain(second, question, 5, value, s->answers);
        /* The worked example: the same with three letters, its answers after two blanks, then an empty line. */
        const char *given = strstr(s->prompt, "variables are assigned the value ");
        assert_true(given < second);
        assert_int_equal(sscanf(given, "variables are assigned the value %15[0-9], they are:  %7s %7s %7s %7s %7s",
                                example_value, names[0], names[1], names[2], names[3], names[4]),
                         6);
        for (size_t i = 0; i < 5; i++)
            example[i] = names[i];
        check_chain(s->prompt, given, 3, example_value, example);
        assert_int_equal(strncmp(second - 2, "\n\n", 2), 0);
        mb_sample_free(s);
    }
}

/* Words of "1. a 2. b ..." between start and end: how often each of `words` occurs, and the number of entries. */
static size_t frequency(const char *start, const char *end, const char *word)
{
    char line[128];
    size_t n = 0;
    snprintf(line, sizeof line, ". %s", word);
    for (const char *c = start; (c = strstr(c, line)) && c < end; c++) {
        char after = c[strlen(line)];
        n += after == ' ' || after == '\n';
    }
    return n;
}

static void test_cwe(void **state)
{
    (void)state;
    static const struct {
        int32_t length;
        size_t often, rarely, example, example_often, example_rarely;
    } cases[] = {{4096, 30, 3, 40, 10, 3}, {2048, 6, 1, 20, 3, 1}};
    for (size_t i = 0; i < 2; i++) {
        char options[64];
        snprintf(options, sizeof options, "{\"lengths\":[%d]}", cases[i].length);
        mb_sample *s = first("ruler_cwe", options, 3);
        const char *intro =
            "Below is a numbered list of words. In these words, some appear more often than others. "
            "Memorize the ones that appear most often.\n1. ";
        const char *prefix = " Answer: The top 10 words that appear most often in the list are:";
        const char *second = strstr(s->prompt + 5, intro), *end = s->prompt + strlen(s->prompt);
        const char *example_end =
            strstr(s->prompt, "\nQuestion: What are the 10 most common words in the above list?");
        assert_non_null(second);
        assert_int_equal(second[-1], '\n');
        assert_frame(s->prompt, intro, "\nQuestion: What are the 10 most common words in the above list?");
        assert_string_equal(s->answer_prefix, prefix);
        assert_int_equal(s->answer_count, 10);
        for (size_t a = 0; a < 10; a++)
            assert_int_equal(frequency(second, end, s->answers[a]), cases[i].often);
        /* Every other word of the list the rare number of times; the last number is the number of entries. */
        size_t entries = 0;
        for (const char *c = strstr(second, "\n1. ") + 1; *c != '\n' && c < end; entries++) {
            char word[64], number[16];
            snprintf(number, sizeof number, "%zu. ", entries + 1);
            assert_int_equal(strncmp(c, number, strlen(number)), 0);
            c += strlen(number);
            size_t n = 0;
            while (c[n] != '\n' && !(c[n] == ' ' && c[n + 1] >= '0' && c[n + 1] <= '9'))
                n++;
            snprintf(word, sizeof word, "%.*s", (int)n, c);
            size_t f = frequency(second, end, word);
            assert_true(f == cases[i].often || f == cases[i].rarely);
            c += n + (c[n] == ' ');
        }
        assert_int_equal((entries - 10 * cases[i].often) % cases[i].rarely, 0);
        const char *given = strstr(s->prompt, prefix) + strlen(prefix);
        assert_true(given < second);
        char word[64];
        assert_int_equal(sscanf(given, " 1. %63s 2.", word), 1);
        assert_int_equal(frequency(s->prompt, example_end, word), cases[i].example_often);
        snprintf(word, sizeof word, " %zu. ",
                 10 * cases[i].example_often + (cases[i].example - 10) * cases[i].example_rarely);
        assert_true(strstr(s->prompt, word) < example_end);
        mb_sample_free(s);
    }
    /* Past the word lists: 8168 distinct words, then made-up ones; still all frequencies right. */
    mb_sample *s = first("ruler_cwe", "{\"lengths\":[200000]}", 3);
    const char *second = strstr(s->prompt + 5, "Below is");
    for (size_t a = 0; a < 10; a++)
        assert_int_equal(frequency(second, s->prompt + strlen(s->prompt), s->answers[a]), 30);
    assert_non_null(strstr(second, " 24774. "));
    mb_sample_free(s);
}

static void test_fwe(void **state)
{
    (void)state;
    mb_sample *s = first("ruler_fwe", "{\"lengths\":[4096]}", 3);
    const char *intro =
        "Read the following coded text and track the frequency of each coded word. Find the three most "
        "frequently appeared coded words. ";
    assert_frame(s->prompt, intro,
                 "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are "
                 "the three most frequently appeared words in the above coded text?");
    assert_string_equal(s->answer_prefix, " Answer: According to the coded text above, the three most frequently "
                                          "appeared words are:");
    /* Rank k of n words: int(n / (k^2 zeta(2))); the dots are rank 1, the answers ranks 2 to 4. */
    const char *body = s->prompt + strlen(intro);
    char *text = strndup(body, (size_t)(strstr(body, "\nQuestion") - body));
    size_t dots = count_of(text, "..."), f[3], total = 1;
    for (const char *c = text; *c; c++)
        total += *c == ' ';
    for (size_t a = 0; a < 3; a++) {
        assert_int_equal(strlen(s->answers[a]), 6);
        f[a] = count_of(text, s->answers[a]);
    }
    assert_true(dots > f[0] && f[0] > f[1] && f[1] > f[2]);
    assert_true(f[0] >= (dots - 3) / 4 && f[0] <= (dots + 3) / 4);
    assert_true(f[1] >= (dots - 8) / 9 && f[1] <= (dots + 8) / 9);
    assert_true(f[2] >= (dots - 15) / 16 && f[2] <= (dots + 15) / 16);
    assert_true(total > 1.5 * (double)dots && total < 1.65 * (double)dots);
    free(text);
    mb_sample_free(s);
}

static void test_qa(void **state)
{
    (void)state;
    const char *sentence =
        "Answer the question based on the given documents. Only give me the answer and do not output "
        "any other words.\n\n";
    char start[256], line[256];
    snprintf(start, sizeof start, "%sThe following are given documents.\n\nDocument 1:\n", sentence);
    mb_task *task = open_task("ruler_qa_1", "{\"lengths\":[600,4096]}", 3, &codecs[0]);
    assert_int_equal(mb_task_size(task), 2 * (SQUAD_DOCUMENTS - 1));
    size_t samples = 0;
    for (mb_sample *s; (s = next(task)); mb_sample_free(s), samples++) {
        size_t number = samples % (SQUAD_DOCUMENTS - 1), i = number ? number + 1 : 0; /* row 1 is impossible */
        snprintf(line, sizeof line, "\n\n%sQuestion: How many wheels has mill %zu?", sentence, i);
        assert_frame(s->prompt, start, line);
        assert_string_equal(s->answer_prefix, " Answer:");
        assert_int_equal(s->answer_count, 2); /* repetitions stay */
        snprintf(line, sizeof line, "and its %zu wheels.", 100 + i);
        assert_true(count_of(s->prompt, line) >= 1);
        snprintf(line, sizeof line, "of article %zu tells", i / 10);
        size_t documents = count_of(s->prompt, "Document "), own = count_of(s->prompt, line);
        /* Other paragraphs of the article come first, all ten of them where they fit. */
        assert_true(documents < 10 ? own == documents : own >= 10);
        if (s->context == 4096) {
            assert_true(documents > SQUAD_DOCUMENTS); /* the pool repeats */
            snprintf(line, sizeof line, "\n\nDocument %zu:\n", documents);
            assert_int_equal(count_of(s->prompt, line), 1);
        }
    }
    assert_int_equal(samples, 2 * (SQUAD_DOCUMENTS - 1));
    mb_task_close(task);
    task = open_task("ruler_qa_2", "{\"lengths\":[400]}", 3, &codecs[0]);
    assert_int_equal(mb_task_size(task), HOTPOT_ROWS);
    for (mb_sample *s; (s = next(task)); mb_sample_free(s)) {
        assert_int_equal(s->answer_count, 1);
        int row = atoi(s->answers[0] + strlen("Mason "));
        for (int p = 0; p < 4; p++) { /* its own documents are always there */
            snprintf(line, sizeof line, ":\nTitle %d.%d\nThe first sentence. Bridge %d was built by Mason %d.",
                     row, p, row, row);
            assert_true(count_of(s->prompt, line) >= 1);
        }
    }
    mb_task_close(task);
}

static void hash_stream(const char *name, uint64_t seed, char hex[MB_HASH_CAP])
{
    mb_task *task = open_task(name, "{\"lengths\":[2048,6000],\"samples\":2}", seed, &codecs[0]);
    mb_hash *hash = mb_hash_new();
    for (mb_sample *s; (s = next(task)); mb_sample_free(s)) {
        mb_hash_add(hash, s->prompt, strlen(s->prompt) + 1);
        mb_hash_add(hash, s->answer_prefix, strlen(s->answer_prefix) + 1);
        for (size_t i = 0; i < s->answer_count; i++)
            mb_hash_add(hash, s->answers[i], strlen(s->answers[i]) + 1);
    }
    mb_hash_end(hash, hex);
    mb_task_close(task);
}

/* Recorded on x86-64 with gcc 12 -O3: another machine, compiler or optimisation must give the same bytes. Change
 * a hash only together with the version in datasets/prompts/ruler.json. */
static void test_same_bytes(void **state)
{
    (void)state;
    static const char *const hashes[] = {
        "b4fa49418abcdb5a4c6fc04e3d8cc6b1", "21ea3c38ce9446d4ffa66947bd6bb7c9", "fd37882b450d99a43b0e452502144230",
        "5397a1e51605124d9530055013c6f473", "cd019e94d14a39cdffe7582697b85474", "5e86b818e71a153413ad6a1136429b04",
        "81dc3bc6d4160f6d9a7db50e46c1daa5", "6e5daea402882280f4daf8d165241541", "3ec4365b411a6966c69ed2d873bb2537",
        "8710e12a17c8ac63b3eb25dc54de159e", "4d0095d6a74d3ce57f1912d4e150a65f", "7a6551abb06f3d2cb2c4ea8c3626c5b7",
        "f13d2b7dcf45cb9307aceb11ee43a92b",
    };
    char a[MB_HASH_CAP], b[MB_HASH_CAP];
    bool good = true;
    for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++) {
        hash_stream(tasks[t].name, 7, a);
        hash_stream(tasks[t].name, 7, b);
        assert_string_equal(a, b);
        if (strcmp(a, hashes[t]) != 0)
            print_error("%s gives %s\n", tasks[t].name, a);
        good = good && strcmp(a, hashes[t]) == 0;
        hash_stream(tasks[t].name, 8, b);
        assert_string_not_equal(a, b);
    }
    assert_true(good);
}

static void test_refusals(void **state)
{
    (void)state;
    char broken[80], options[160];
    snprintf(broken, sizeof broken, "%s/broken.json", folder);
    snprintf(options, sizeof options, "{\"file\":\"%s\"}", broken);
    const struct {
        const char *name, *options, *content, *says;
    } cases[] = {
        {"ruler_vt", "{\"essay\":\"text\"}", NULL, "essay"},
        {"ruler_cwe", "{\"samples\":-1}", NULL, "samples"},
        {"ruler_niah_single_2", "{\"essay\":\"/nowhere\"}", NULL, "/nowhere"},
        {"ruler_qa_1", "{\"file\":\"/nowhere.json\"}", NULL, "/nowhere.json"},
        {"ruler_qa_1", options, "{\"data\":[{\"paragraphs\":[{\"qas\":[]}]}]}", "context"},
        {"ruler_qa_1", options, "{\"data\": [", "no valid JSON"},
        {"ruler_qa_1", options, "[]", "data"},
        {"ruler_qa_1", options, "{\"data\":[]}", "no answerable question"},
        {"ruler_qa_2", options, "{\"data\":[]}", "array"},
        {"ruler_qa_2", options, "[{\"question\":\"q\",\"answer\":\"a\",\"context\":[[1,2]]}]", "pair"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mb_task_request request = {.task = cases[i].name, .codec = &codecs[0], .options = cases[i].options};
        mb_task *task = NULL;
        if (cases[i].content)
            assert_int_equal(mb_file_write(broken, cases[i].content, strlen(cases[i].content), &err), MB_OK);
        assert_int_equal(mb_task_open(&task, &request, &err), MB_E_INPUT);
        if (!strstr(err.text, cases[i].says))
            fail_msg("%s: the sentence \"%s\" does not say %s", cases[i].options, err.text, cases[i].says);
    }
    unlink(broken);
    const mb_task_request nowhere = {.task = "ruler_qa_2", .codec = &codecs[0], .folder = "/nowhere"};
    mb_task *task = NULL;
    assert_int_equal(mb_task_open(&task, &nowhere, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "fetch.sh hotpotqa"));
    /* Too short: the sample is bad, the stream goes on. */
    task = open_task("ruler_vt", "{\"lengths\":[300,2000],\"samples\":1}", 1, &codecs[0]);
    mb_sample *sample = NULL;
    assert_int_equal(mb_task_next(task, &sample, &err), MB_E_SAMPLE);
    assert_string_equal(sample->key, "len300_0");
    mb_sample_free(sample);
    mb_sample_free(next(task));
    assert_null(next(task));
    mb_task_close(task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),  cmocka_unit_test(test_niah),       cmocka_unit_test(test_vt),
        cmocka_unit_test(test_cwe),      cmocka_unit_test(test_fwe),        cmocka_unit_test(test_qa),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_same_bytes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
