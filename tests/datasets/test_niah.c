/*
 * test_niah.c - the needle tests: lengths, depths, wording, determinism, refusals, scores. Grids are compared with
 * published files (the 35 depths of the Claude 2.1 run, the 15 of the GPT-4 run, numpy's linspace); positions are
 * found again in the prompt and counted with the codec, not taken from the generator.
 */
#include "datasets/generate/generate.h"
#include "tests/datasets/codecs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static word_list *list;
static mb_codec codecs[3];
static mb_error err;

static int set_up(void **state)
{
    (void)state;
    list = calloc(1, sizeof *list);
    codecs[0] = (mb_codec){.self = list, .encode = words_encode, .decode = words_decode};
    codecs[1] = (mb_codec){.encode = bytes_encode, .decode = bytes_decode};
    codecs[2] = (mb_codec){.encode = chunks_encode, .decode = chunks_decode};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    words_free(list);
    return 0;
}

static mb_task *open_task(const char *name, const char *options, uint64_t seed, const mb_codec *codec)
{
    const mb_task_request request = {
        .task = name, .seed = seed, .codec = codec, .options = options, .prompt_overhead = 9};
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

static mb_sample *first(const char *name, const char *options, uint64_t seed, const mb_codec *codec)
{
    mb_task *task = open_task(name, options, seed, codec);
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

static void test_grid(void **state)
{
    (void)state;
    static const double claude[35] = {0,      0.896,  1.199,  1.602,  2.138,  2.849,  3.786,  5.016,  6.617,
                                      8.683,  11.316, 14.62,  18.685, 23.569, 29.269, 35.704, 42.7,   50,
                                      57.3,   64.296, 70.731, 76.431, 81.315, 85.38,  88.684, 91.317, 93.383,
                                      94.984, 96.214, 97.151, 97.862, 98.398, 98.801, 99.104, 100};
    static const double gpt4[15] = {0, 7, 14, 21, 29, 36, 43, 50, 57, 64, 71, 79, 86, 93, 100};
    static const int32_t numpy[35] = {1000,  1441,  1882,  2324,  2765,  3206,  3647,  4088,  4529,
                                      4971,  5412,  5853,  6294,  6735,  7176,  7618,  8059,  8500,
                                      8941,  9382,  9824,  10265, 10706, 11147, 11588, 12029, 12471,
                                      12912, 13353, 13794, 14235, 14676, 15118, 15559, 16000};
    double depths[35];
    mb_niah_grid_depths(0, 100, 35, true, depths);
    for (size_t i = 0; i < 35; i++)
        assert_true(depths[i] == claude[i]);
    mb_niah_grid_depths(0, 100, 15, false, depths);
    for (size_t i = 0; i < 15; i++)
        assert_true(depths[i] == gpt4[i]);
    mb_niah_grid_depths(20, 80, 1, false, depths);
    assert_true(depths[0] == 20);
    const char *options = "{\"lengths\":{\"from\":1000,\"to\":16000,\"count\":35},\"depths\":35,"
                          "\"spacing\":\"sigmoid\",\"haystack\":\"noise\"}";
    mb_task *task = open_task("niah_single", options, 1, &codecs[0]);
    assert_int_equal(mb_task_size(task), 35 * 35);
    for (size_t i = 0; i < 3 * 35; i++) {
        mb_sample *sample = next(task);
        char key[64];
        snprintf(key, sizeof key, "len%d_depth%g_0", numpy[i / 35], claude[i % 35]);
        assert_string_equal(sample->key, key);
        assert_int_equal(sample->context, numpy[i / 35]);
        assert_true(sample->depth == claude[i % 35]);
        mb_sample_free(sample);
    }
    mb_task_close(task);
}

/* Wrapper + prompt + prefix + new tokens never exceed the length; less than one filler unit is missing. */
static void check_lengths(const char *name, const char *extra, const mb_codec *codec, int64_t unit)
{
    static const int32_t lengths[] = {512, 777, 1024, 1500, 2311, 4096};
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (uint64_t seed = 1; seed <= 4; seed++) {
            int32_t length = lengths[l] * (codec->encode == bytes_encode    ? 5
                                           : codec->encode == chunks_encode ? 2
                                                                            : 1);
            char options[256];
            snprintf(options, sizeof options, "{\"lengths\":[%d],\"depths\":[0,33,100]%s}", length, extra);
            mb_task *task = open_task(name, options, seed, codec);
            for (mb_sample *sample; (sample = next(task)); mb_sample_free(sample)) {
                int64_t tokens =
                    9 + count_tokens(codec, sample->prompt) + count_tokens(codec, sample->answer_prefix);
                assert_int_equal(sample->length, tokens);
                int64_t gap = length - tokens - sample->max_new_tokens;
                if (gap < 0 || gap >= unit)
                    fail_msg("%s %s seed %d: %d tokens miss %s", name, extra, (int)seed, (int)gap, sample->key);
            }
            mb_task_close(task);
        }
}

static void test_lengths(void **state)
{
    (void)state;
    check_lengths("niah_single", "", &codecs[0], 1); /* built-in text: met exactly */
    check_lengths("niah_multikey", ",\"keys\":7,\"answer_prefix\":true", &codecs[0], 1);
    check_lengths("niah_multiquery", ",\"queries\":4", &codecs[0], 1);
    check_lengths("niah_multivalue", ",\"values\":3,\"form\":\"word\"", &codecs[0], 1);
    check_lengths("niah_single", ",\"form\":\"uuid\"", &codecs[1], 20);
    check_lengths("niah_single", ",\"haystack\":\"noise\"", &codecs[0], 6);
    check_lengths("niah_single", ",\"haystack\":\"noise\"", &codecs[1], 26);
    check_lengths("niah_single", ",\"haystack\":\"needles\"", &codecs[0], 30);
    check_lengths("niah_multikey", "", &codecs[2], 40);
    check_lengths("niah_single", ",\"haystack\":\"noise\",\"form\":\"code\"", &codecs[2], 9);
}

/* Where the needle is, counted from outside: tokens before it over tokens of the haystack without it. */
static void test_depth(void **state)
{
    (void)state;
    const char *options = "{\"lengths\":[900,4096],\"depths\":[0,10,37.5,50,99.104,100],\"samples\":3}";
    mb_task *task = open_task("niah_single", options, 11, &codecs[0]);
    size_t samples = 0;
    for (mb_sample *sample; (sample = next(task)); mb_sample_free(sample), samples++) {
        const char *body = strstr(sample->prompt, "afterwards.\n") + strlen("afterwards.\n");
        const char *needle = strstr(body, " One of the special magic numbers for ");
        const char *question = strstr(body, " What is the special magic number for ");
        const char *end = strstr(needle, ".") + 1;
        assert_non_null(strstr(needle, sample->answers[0]));
        assert_int_equal(count_of(sample->prompt, sample->answers[0]), 1);
        if (needle > body) /* after the end of a sentence */
            assert_true(strchr(".?!\"", needle[-1]) != NULL);
        char *before = strndup(body, (size_t)(needle - body)), *after = strndup(end, (size_t)(question - end));
        int64_t a = count_tokens(&codecs[0], before), b = count_tokens(&codecs[0], after);
        const char *stop = strpbrk(after, ".?"); /* the sentence behind the needle */
        char *sentence = strndup(after, stop ? (size_t)(stop - after + 2) : 0);
        double target = sample->depth / 100 * (double)(a + b);
        assert_true((double)a <= target);
        assert_true(target - (double)a <= (double)count_tokens(&codecs[0], sentence) + 8);
        if (sample->depth == 100)
            assert_int_equal(b, 0);
        if (sample->depth == 0)
            assert_int_equal(a, 0);
        free(before);
        free(after);
        free(sentence);
    }
    assert_int_equal(samples, 36);
    mb_task_close(task);
}

static void test_wording(void **state)
{
    (void)state;
    mb_sample *s =
        first("niah_multiquery", "{\"lengths\":[700],\"depths\":[50],\"queries\":3,\"answer_prefix\":true}", 5,
              &codecs[0]);
    char keys[3][64], line[512];
    assert_int_equal(s->answer_count, 3);
    assert_int_equal(sscanf(strstr(s->prompt, "What are all the special magic numbers for "),
                            "What are all the special magic numbers for %63[^,], %63[^,], and %63s mentioned",
                            keys[0], keys[1], keys[2]),
                     3);
    for (size_t i = 0; i < 3; i++) { /* answers in the order of the question */
        snprintf(line, sizeof line, " One of the special magic numbers for %s is: %s. ", keys[i], s->answers[i]);
        assert_non_null(strstr(s->prompt, line));
    }
    snprintf(line, sizeof line, "The special magic numbers for %s, %s, and %s mentioned in the provided text are",
             keys[0], keys[1], keys[2]);
    assert_string_equal(s->answer_prefix, line);
    mb_sample_free(s);
    /* Several values of one key; the text has them in the order of the answers. */
    s = first("niah_multivalue", "{\"lengths\":[900],\"depths\":[20],\"values\":4}", 5, &codecs[0]);
    assert_int_equal(s->answer_count, 4);
    assert_int_equal(count_of(s->prompt, " One of the special magic numbers for "), 4);
    const char *at = s->prompt;
    for (size_t i = 0; i < 4; i++)
        assert_non_null(at = strstr(at, s->answers[i]));
    mb_sample_free(s);
    /* The trained layout of the tiny model: intro, newline, blank before every sentence. */
    s = first("niah_single", "{\"lengths\":[400],\"depths\":[0],\"form\":\"code\"}", 5, &codecs[0]);
    char key[64], value[64];
    assert_int_equal(
        sscanf(s->prompt,
               "Some special facts are hidden within the following text. Make sure to memorize "
               "them. I will quiz you about them afterwards.\n The secret code of the %63s is %63[0-9].",
               key, value),
        2);
    assert_string_equal(value, s->answers[0]);
    assert_int_equal(strlen(value), 7);
    snprintf(line, sizeof line, " What is the secret code of the %s?", key);
    assert_string_equal(s->prompt + strlen(s->prompt) - strlen(line), line);
    assert_string_equal(s->answer_prefix, "");
    assert_true(s->chat);
    mb_sample_free(s);
}

static void test_other_needles(void **state)
{
    (void)state;
    mb_sample *s = first("niah_multikey", "{\"lengths\":[2000],\"depths\":[50],\"keys\":20}", 2, &codecs[0]);
    assert_int_equal(count_of(s->prompt, " One of the special magic numbers for "), 21);
    assert_int_equal(count_of(s->prompt, s->answers[0]), 1);
    mb_sample_free(s);
    /* A haystack of needles has nothing else, and no key twice. */
    s = first("niah_single", "{\"lengths\":[8000],\"depths\":[50],\"haystack\":\"needles\"}", 2, &codecs[0]);
    const char *body = strstr(s->prompt, "afterwards.\n") + strlen("afterwards.\n");
    size_t needles = count_of(body, " One of the special magic numbers for "), sentences = count_of(body, ". ");
    assert_int_equal(needles, sentences);
    assert_true(needles > 250);
    for (const char *c = body; (c = strstr(c, " numbers for ")); c++) {
        char key[80];
        assert_int_equal(sscanf(c, " numbers for %60s is:", key), 1);
        strcat(key, " is:");
        assert_int_equal(count_of(body, key), 1);
    }
    mb_sample_free(s);
    /* The built-in text has nothing that looks like a needle. */
    s = first("niah_single", "{\"lengths\":[60000],\"depths\":[0]}", 3, &codecs[0]);
    body = strstr(strstr(s->prompt, "afterwards.\n"), ". ") + 1;
    const char *question = strstr(body, " What is the special magic number");
    static const char *const words[] = {"magic", "secret", "special", "code", "password", "VAR", "is:"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const char *hit = strstr(body, words[i]);
        assert_true(!hit || hit >= question);
    }
    for (const char *c = body; c < question; c++)
        assert_false(*c >= '0' && *c <= '9');
    mb_sample_free(s);
}

static void hash_stream(const char *name, const char *options, uint64_t seed, char hex[MB_HASH_CAP])
{
    mb_task *task = open_task(name, options, seed, &codecs[0]);
    mb_hash *hash = mb_hash_new();
    for (mb_sample *s; (s = next(task)); mb_sample_free(s)) {
        mb_hash_add(hash, s->key, strlen(s->key) + 1);
        mb_hash_add(hash, s->prompt, strlen(s->prompt) + 1);
        mb_hash_add(hash, s->answer_prefix, strlen(s->answer_prefix) + 1);
        for (size_t i = 0; i < s->answer_count; i++)
            mb_hash_add(hash, s->answers[i], strlen(s->answers[i]) + 1);
    }
    mb_hash_end(hash, hex);
    mb_task_close(task);
}

/* Recorded on x86-64 with gcc 12 -O3: another machine, compiler or optimisation must give the same bytes. Change
 * a hash only together with the version in datasets/prompts/niah.json. */
static void test_same_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *name, *options, *hex;
    } cases[] = {
        {"niah_single", "{\"lengths\":[512,3000],\"depths\":3,\"samples\":2}", "f6f071c6efc94ca21749cd97e7758e8b"},
        {"niah_multikey", "{\"lengths\":[1024],\"depths\":[50],\"keys\":9,\"form\":\"word\"}",
         "8bcb64166b68d76f5ee0725e268fa587"},
        {"niah_multivalue", "{\"lengths\":[1024],\"depths\":5,\"spacing\":\"sigmoid\"}",
         "4dacc53cd4b927788f34cae3661d2e02"},
        {"niah_multiquery", "{\"lengths\":[1024],\"depths\":[0],\"queries\":4,\"form\":\"uuid\"}",
         "385bcbb9dc9de4bcf31bf2a98b0bd714"},
        {"niah_single", "{\"lengths\":[2048],\"depths\":[50],\"haystack\":\"needles\"}",
         "28c2f0c16e36a0eb3fdd2dfac251b070"},
    };
    char a[MB_HASH_CAP], b[MB_HASH_CAP];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hash_stream(cases[i].name, cases[i].options, 7, a);
        hash_stream(cases[i].name, cases[i].options, 7, b);
        assert_string_equal(a, b);
        if (strcmp(a, cases[i].hex) != 0)
            fail_msg("%s %s gives %s", cases[i].name, cases[i].options, a);
        hash_stream(cases[i].name, cases[i].options, 8, b);
        assert_string_not_equal(a, b);
    }
    /* One haystack over all depths of a cell's column. */
    mb_task *task = open_task("niah_single", "{\"lengths\":[1024],\"depths\":[0,100]}", 4, &codecs[0]);
    mb_sample *s = next(task), *t = next(task);
    const char *x = strstr(strstr(s->prompt, "afterwards.\n"), ". ") + 1,
               *y = strstr(t->prompt, "afterwards.\n") + 12;
    assert_int_equal(strncmp(x, y, 2000), 0);
    assert_string_not_equal(s->answers[0], t->answers[0]);
    mb_sample_free(s);
    mb_sample_free(t);
    /* The task's hash tells the seed and the options apart. */
    mb_task_hash(task, a);
    mb_task_close(task);
    task = open_task("niah_single", "{\"lengths\":[1024],\"depths\":[0,100]}", 5, &codecs[0]);
    mb_task_hash(task, b);
    mb_task_close(task);
    assert_string_not_equal(a, b);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *name, *options, *says;
    } cases[] = {
        {"niah_single", "{\"lenghts\":[1024]}", "lenghts"},
        {"niah_single", "{\"lengths\":[]}", "lengths"},
        {"niah_single", "{\"lengths\":[1024.5]}", "lengths"},
        {"niah_single", "{\"lengths\":\"long\"}", "lengths"},
        {"niah_single", "{\"lengths\":{\"from\":10,\"to\":5,\"count\":2}}", "lengths"},
        {"niah_single", "{\"lengths\":{\"from\":100,\"to\":500,\"count\":2,\"step\":1}}", "step"},
        {"niah_single", "{\"depths\":[101]}", "depths"},
        {"niah_single", "{\"depths\":0}", "depths"},
        {"niah_single", "{\"spacing\":\"cubic\"}", "sigmoid"},
        {"niah_single", "{\"samples\":0}", "samples"},
        {"niah_single", "{\"form\":\"poem\"}", "number"},
        {"niah_single", "{\"answer_prefix\":1}", "answer_prefix"},
        {"niah_single", "{\"values\":2}", "niah_multivalue"},
        {"niah_multivalue", "{\"queries\":2}", "niah_multiquery"},
        {"niah_multiquery", "{\"queries\":99}", "queries"},
        {"niah_single", "{\"score\":\"judge\"}", "keywords"},
        {"niah_single", "{\"haystack\":\"/nowhere/at/all\"}", "/nowhere/at/all"},
        {"niah_classic", "{}", "essays"},
        {"niah_classic", "{\"form\":\"word\"}", "form"},
        {"niah_single", "[1]", "JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mb_task_request request = {
            .task = cases[i].name, .codec = &codecs[0], .options = cases[i].options, .folder = "/nowhere"};
        mb_task *task = NULL;
        assert_int_equal(mb_task_open(&task, &request, &err), MB_E_INPUT);
        if (!strstr(err.text, cases[i].says))
            fail_msg("%s: the sentence \"%s\" does not say %s", cases[i].options, err.text, cases[i].says);
    }
    /* Too short for its needles: that sample is bad, the stream goes on. */
    mb_task *task =
        open_task("niah_multikey", "{\"lengths\":[150,600],\"depths\":[50],\"keys\":10}", 1, &codecs[0]);
    mb_sample *sample = NULL;
    assert_int_equal(mb_task_next(task, &sample, &err), MB_E_SAMPLE);
    assert_non_null(sample);
    assert_string_equal(sample->key, "len150_depth50_0");
    assert_non_null(strstr(err.text, "longer context"));
    mb_sample_free(sample);
    sample = next(task);
    assert_int_equal(sample->context, 600);
    mb_sample_free(sample);
    assert_null(next(task));
    mb_task_close(task);
    /* A plan needs no tokenizer, a sample does. */
    task = open_task("niah_single", NULL, 1, NULL);
    assert_int_equal(mb_task_size(task), 10);
    assert_int_equal(mb_task_next(task, &sample, &err), MB_E_INPUT);
    mb_task_close(task);
}

static double score(const char *task, const char *rule, const char *const *answers, const char *prediction)
{
    mb_sample *s = mb_sample_new();
    double value = -1;
    s->scoring = rule ? mb_string_copy(rule) : NULL;
    for (; *answers; answers++)
        mb_sample_add_answer(s, *answers, strlen(*answers));
    if (strcmp(task, "niah_classic") == 0) {
        mb_sample_add_class(s, "sandwich", 8);
        mb_sample_add_class(s, "dolores park", 12);
    }
    assert_int_equal(mb_sample_score(task, s, prediction, &value, &err), MB_OK);
    mb_sample_free(s);
    return value;
}

static void test_scores(void **state)
{
    (void)state;
    static const char *const one[] = {"1234567", NULL}, *const two[] = {"1234567", "Blue Lamp", NULL};
    static const char *const sandwich[] = {"eat a sandwich and sit in Dolores Park on a sunny day.", NULL};
    assert_true(score("niah_single", NULL, one, "It is 1234567.") == 1);
    assert_true(score("niah_single", NULL, one, "It is 123456.") == 0);
    assert_true(score("niah_single", NULL, one, "") == 0);
    assert_true(score("niah_multiquery", "contains", two, "a BLUE lamp") == 0.5);
    assert_true(score("niah_multiquery", "contains", two, "blue lamp, 1234567") == 1);
    assert_true(score("niah_single", "digits", one, "the 1234999 it is") == 4.0 / 7);
    assert_true(score("niah_single", "digits", one, "no digits") == 0);
    assert_true(score("niah_single", "digits", one, "99 or 1234567") == 1);
    /* the best possible keyword recall is 11/12, because "a" stands in it twice */
    assert_true(score("niah_classic", "keywords", sandwich,
                      "Eat a sandwich and sit in Dolores Park on a sunny day.") == 11.0 / 12);
    assert_true(score("niah_classic", "keywords", sandwich, "sandwich dolores") == 2.0 / 12);
    assert_true(score("niah_classic", "contains", sandwich, "Sit in DOLORES PARK with a Sandwich") == 1);
    assert_true(score("niah_classic", "contains", sandwich, "Sit in Dolores Park") == 0);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char *path = mb_string_format("%s/%s", folder, name);
    assert_int_equal(mb_file_write(path, text, strlen(text), &err), MB_OK);
    free(path);
}

/* The original test on a folder of three small files. */
static void test_classic(void **state)
{
    (void)state;
    char folder[] = "/tmp/niah-essays-XXXXXX", options[256];
    assert_non_null(mkdtemp(folder));
    write_file(folder, "b.txt", "Second file. It has two sentences and no end");
    write_file(folder, "a.txt", "First file. The boat is slow. ");
    write_file(folder, "c.md", "Not an essay.");
    for (size_t layout = 0; layout < 2; layout++) {
        snprintf(options, sizeof options,
                 "{\"haystack\":\"%s\",\"lengths\":[400,900],\"depths\":[0,40,100],\"prompt\":\"%s\"}", folder,
                 layout ? "book" : "messages");
        mb_task *task = open_task("niah_classic", options, 1, &codecs[0]);
        for (mb_sample *s; (s = next(task)); mb_sample_free(s)) {
            const char *needle =
                "\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on "
                "a sunny day.\n";
            int64_t tokens = 9 + count_tokens(&codecs[0], s->prompt);
            assert_int_equal(tokens, s->length);
            assert_true(tokens + s->max_new_tokens <= s->context && tokens + s->max_new_tokens >= s->context - 2);
            assert_int_equal(count_of(s->prompt, needle), 1);
            assert_null(strstr(s->prompt, "Not an essay"));
            const char *start = strstr(s->prompt, layout ? "<book> " : "direct\n\n") + (layout ? 7 : 8);
            const char *at = strstr(start, needle);
            assert_int_equal(strncmp(s->depth == 0 ? at + strlen(needle) : start,
                                     "First file. The boat is slow. Second file. It has", 49),
                             0);
            if (s->depth == 0)
                assert_ptr_equal(at, start);
            else if (s->depth < 100)
                assert_int_equal(at[-1], '.');
            else
                assert_int_equal(strncmp(at + strlen(needle), layout ? " </book>" : "\n\nWhat", 6), 0);
        }
        mb_task_close(task);
    }
    /* The same folder as haystack of the built-in needles, and found as <data folder>/essays. */
    snprintf(options, sizeof options, "{\"haystack\":\"%s\",\"lengths\":[600],\"depths\":[50]}", folder);
    mb_sample *s = first("niah_single", options, 1, &codecs[0]);
    assert_true(count_of(s->prompt, "The boat is slow.") > 10);
    mb_sample_free(s);
    write_file(folder, "d.txt", "broken \xff bytes");
    const mb_task_request request = {.task = "niah_single", .codec = &codecs[0], .options = options};
    mb_task *task = NULL;
    assert_int_equal(mb_task_open(&task, &request, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "d.txt"));
    static const char *const names[] = {"a.txt", "b.txt", "c.md", "d.txt"};
    for (size_t i = 0; i < 4; i++) {
        char *path = mb_string_format("%s/%s", folder, names[i]);
        unlink(path);
        free(path);
    }
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grid),     cmocka_unit_test(test_lengths),       cmocka_unit_test(test_depth),
        cmocka_unit_test(test_wording),  cmocka_unit_test(test_other_needles), cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_scores),        cmocka_unit_test(test_classic),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
