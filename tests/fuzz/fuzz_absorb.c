/*
 * fuzz_absorb.c - any bytes as the rows that a worker of --devices sends: the bytes are laid over good ones (pairs
 * of offset and byte where the first byte is odd, all of them where it is even). They are refused with a sentence
 * and nothing is stored, or taken; good rows are taken afterwards in any case.
 */
#include "tests/fuzz/stored.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static mb_text good;

static void drop(void)
{
    mb_text_free(&good);
}

static void make(void)
{
    mb_store *worker = NULL;
    must(mb_store_open_memory(&worker, NULL));
    stored_rows(worker, stored_run(worker));
    must(mb_store_pack(worker, &good, NULL));
    must(mb_store_close(worker, NULL));
    atexit(drop);
}

static bool is_empty(mb_store *store)
{
    mb_text out = {0};
    must(mb_table_query(store, "SELECT count(*) FROM sample", MB_TABLE_CSV, 0, &out, NULL));
    bool empty = out.data && strstr(out.data, "\n0");
    mb_text_free(&out);
    return empty;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t length = 0;
    mb_error err = {0};
    mb_store *result = NULL;
    if (!good.length)
        make();
    must(mb_store_open_memory(&result, NULL));
    int64_t run = stored_run(result);
    char *bytes = stored_bytes(good.data, good.length, data, size, &length);
    int rc = mb_store_absorb(result, run, bytes, length, &err);
    if (rc != MB_OK && (!err.text[0] || !is_empty(result)))
        abort();
    if (rc != MB_OK && mb_store_absorb(result, run, good.data, good.length, &err) != MB_OK)
        abort();
    free(bytes);
    must(mb_store_close(result, NULL));
    return 0;
}
