/*
 * test_generated_tiny.c - generated samples under the real tokenizer of the embedded model: no prompt exceeds its
 * length, the built-in haystack meets it exactly, and the model's own count agrees with the sample's.
 */
#include "model/model.h"
#include "datasets/datasets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static mb_error err;

static int tiny_encode(void *self, const char *text, size_t length, int32_t **ids, size_t *n)
{
    return mb_tokenizer_encode(self, text, length, false, ids, n, &err);
}

static int tiny_decode(void *self, const int32_t *ids, size_t n, char **text)
{
    size_t length = 0;
    return mb_tokenizer_decode(self, ids, n, false, text, &length, &err);
}

static int set_up(void **state)
{
    mb_tokenizer *tokenizer = NULL;
    if (mb_tokenizer_open(&tokenizer, "models/tiny", &err) != MB_OK)
        fail_msg("%s", err.text);
    *state = tokenizer;
    return 0;
}

static int tear_down(void **state)
{
    mb_tokenizer_close(*state);
    return 0;
}

static int64_t count(mb_tokenizer *tokenizer, const char *text, bool special)
{
    int32_t *ids = NULL;
    size_t n = 0;
    assert_int_equal(mb_tokenizer_encode(tokenizer, text, strlen(text), special, &ids, &n, &err), MB_OK);
    free(ids);
    return (int64_t)n;
}

static const char *const wrapper[2] = {"<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"};

/* Every sample of the stream fits, within `unit` tokens, counted as the model sees it: one text, wrapper around.
 */
static void check(mb_tokenizer *tokenizer, const char *name, const char *options, int64_t unit)
{
    const mb_codec codec = {.self = tokenizer, .encode = tiny_encode, .decode = tiny_decode};
    char *empty = mb_string_format("%s%s", wrapper[0], wrapper[1]);
    const mb_task_request request = {.task = name,
                                     .seed = 3,
                                     .codec = &codec,
                                     .options = options,
                                     .prompt_overhead = (int32_t)count(tokenizer, empty, true)};
    mb_task *task = NULL;
    free(empty);
    if (mb_task_open(&task, &request, &err) != MB_OK)
        fail_msg("%s", err.text);
    mb_sample *sample;
    int rc;
    size_t samples = 0;
    for (; (rc = mb_task_next(task, &sample, &err)) == 1; mb_sample_free(sample), samples++) {
        char *whole = mb_string_format("%s%s%s%s", wrapper[0], sample->prompt, wrapper[1], sample->answer_prefix);
        int64_t tokens = count(tokenizer, whole, true);
        free(whole);
        assert_int_equal(tokens, sample->length);
        int64_t gap = sample->context - tokens - sample->max_new_tokens;
        if (gap < 0 || gap >= unit)
            fail_msg("%s %s: %d tokens miss %s", name, options, (int)gap, sample->key);
    }
    if (rc < 0)
        fail_msg("%s: %s", name, err.text);
    assert_true(samples > 0);
    mb_task_close(task);
}

static void test_niah(void **state)
{
    check(*state, "niah_single", "{\"lengths\":[512,777,1024,2048,4099,8192],\"depths\":7,\"samples\":2}", 1);
    check(*state, "niah_multikey",
          "{\"lengths\":[1024,4096],\"keys\":15,\"form\":\"word\",\"answer_prefix\":true}", 1);
    check(*state, "niah_multivalue", "{\"lengths\":[1024,4096],\"form\":\"code\"}", 1);
    check(*state, "niah_multiquery", "{\"lengths\":[1024,4096],\"form\":\"uuid\",\"queries\":4}", 1);
    check(*state, "niah_single", "{\"lengths\":[1024,4096],\"haystack\":\"noise\"}", 12);
    check(*state, "niah_single", "{\"lengths\":[4096],\"haystack\":\"needles\"}", 40);
}

static void test_ruler(void **state)
{
    static const char *const retrieval[] = {"ruler_niah_single_2", "ruler_niah_single_3", "ruler_niah_multikey_1",
                                            "ruler_niah_multivalue", "ruler_niah_multiquery"};
    for (size_t i = 0; i < sizeof retrieval / sizeof *retrieval; i++)
        check(*state, retrieval[i], "{\"lengths\":[1500,4096],\"samples\":3}", 12);
    check(*state, "ruler_niah_single_1", "{\"lengths\":[1500,4096],\"samples\":3}", 60);
    check(*state, "ruler_niah_multikey_2", "{\"lengths\":[1500,4096],\"samples\":3}", 45);
    check(*state, "ruler_niah_multikey_3", "{\"lengths\":[1500,4096],\"samples\":3}", 120);
    check(*state, "ruler_vt", "{\"lengths\":[1500,4096],\"samples\":3}", 60);
    check(*state, "ruler_cwe", "{\"lengths\":[1500,8192],\"samples\":3}", 60);
    check(*state, "ruler_fwe", "{\"lengths\":[1500,4096],\"samples\":3}", 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_niah), cmocka_unit_test(test_ruler)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
