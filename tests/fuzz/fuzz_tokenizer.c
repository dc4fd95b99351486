/*
 * fuzz_tokenizer.c - the first byte chooses: 'J' the rest is a tokenizer.json; 'V' the rest is vocab.json,
 * merges.txt, tokenizer_config.json and added_tokens.json with zero bytes between them; anything else is text for
 * the tokenizer of the tests. Text must come back from its ids as its own NFC form.
 */
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the ids of the text decode to; NULL when it could not be encoded. */
static char *round_trip(const mb_tokenizer *tokenizer, const char *text, size_t n, bool special, size_t *length)
{
    int32_t *ids = NULL;
    size_t count = 0;
    char *back = NULL;
    mb_error err = {0};
    if (mb_tokenizer_encode(tokenizer, text, n, special, &ids, &count, &err) != MB_OK) {
        if (err.text[0] == '\0' || ids)
            abort();
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= mb_tokenizer_size(tokenizer))
            abort();
    if (mb_tokenizer_decode(tokenizer, ids, count, false, &back, length, &err) != MB_OK)
        abort();
    free(ids);
    return back;
}

static void check_text(const char *text, size_t n)
{
    static mb_tokenizer *tokenizer; /* opened once for all inputs */
    mb_error err = {0};
    if (!tokenizer && mb_tokenizer_open(&tokenizer, "tests/model/fixtures/bpe", &err) != MB_OK)
        abort(); /* run it from the root of the repository */
    size_t length = 0;
    char *back = round_trip(tokenizer, text, n, true, &length);
    if (!back)
        abort();
    free(back);
    back = round_trip(tokenizer, text, n, false, &length);
    mb_text repaired = {0};
    mb_utf8_repair(&repaired, text, n);
    mb_text nfc = {0}, again = {0};
    if (!back || !mb_unicode_nfc(&nfc, repaired.data ? repaired.data : "", repaired.length) ||
        nfc.length != length || (length && memcmp(back, nfc.data, length) != 0))
        abort();
    /* NFC of NFC is the same: a mistake in the order of marks or in a composition seldom is its own fixed point.
     */
    if (!mb_unicode_nfc(&again, nfc.data ? nfc.data : "", nfc.length) || again.length != length ||
        (length && memcmp(again.data, nfc.data, length) != 0))
        abort();
    mb_text_free(&again);
    mb_text_free(&nfc);
    free(back);
    mb_text_free(&repaired);
}

static void check_files(const struct mb_tokenizer_files *files)
{
    static const char sample[] = "Hello  world, I'm 12 \n\n  <|im_end|>e\xcc\x81 \xe4\xbd\xa0\xff";
    mb_tokenizer *tokenizer = NULL;
    mb_error err = {0};
    size_t length = 0;
    int rc = mb_tokenizer_build(&tokenizer, files, "input", &err);
    if (rc == MB_OK)
        free(round_trip(tokenizer, sample, sizeof sample - 1, true, &length));
    else if ((rc != MB_E_INPUT && rc != MB_E_SYSTEM) || err.text[0] == '\0' || tokenizer)
        abort();
    mb_tokenizer_close(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *part[4] = {NULL};
    size_t length[4] = {0};
    if (size == 0)
        return 0;
    if (data[0] != 'J' && data[0] != 'V') {
        check_text((const char *)data, size);
        return 0;
    }
    const uint8_t *at = data + 1, *end = data + size;
    for (int i = 0; i < (data[0] == 'J' ? 1 : 4); i++) {
        const uint8_t *zero = data[0] == 'V' ? memchr(at, 0, (size_t)(end - at)) : NULL;
        length[i] = (size_t)((zero ? zero : end) - at);
        part[i] = malloc(length[i] + 1);
        if (!part[i])
            abort();
        memcpy(part[i], at, length[i]);
        at = zero ? zero + 1 : end;
    }
    struct mb_tokenizer_files files = {0};
    if (data[0] == 'J') {
        files.tokenizer = part[0];
        files.tokenizer_size = length[0];
    } else {
        files = (struct mb_tokenizer_files){.vocab = part[0],
                                            .merges = part[1],
                                            .config = length[2] ? part[2] : NULL,
                                            .added = length[3] ? part[3] : NULL,
                                            .vocab_size = length[0],
                                            .merges_size = length[1],
                                            .config_size = length[2],
                                            .added_size = length[3]};
    }
    check_files(&files);
    for (int i = 0; i < 4; i++)
        free(part[i]);
    return 0;
}
