/*
 * fuzz_absorb.c - any bytes as the rows that a worker of --devices sends: the bytes are laid over good ones (pairs
 * of offset and byte where the first byte is odd, all of them where it is even). They are refused with a sentence
 * and nothing is stored, or taken; good rows are taken afterwards in any case.
 *
 * One store serves all inputs, each in a transaction that is rolled back: making a store takes SQLite ten times as
 * long as absorbing. One input of 64 has a store of its own, which takes the rows for good.
 */
#include "results/merge.h"
#include "tests/fuzz/stored.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static mb_text good;
static mb_store *kept;
static int64_t kept_run;

static void drop(void)
{
    mb_text_free(&good);
    must(mb_store_close(kept, NULL));
}

static mb_store *make_result(int64_t *run)
{
    mb_store *result = NULL;
    must(mb_store_open_memory(&result, NULL));
    *run = stored_run(result);
    return result;
}

static void make(void)
{
    mb_store *worker = NULL;
    must(mb_store_open_memory(&worker, NULL));
    stored_rows(worker, stored_run(worker));
    must(mb_store_pack(worker, &good, NULL));
    must(mb_store_close(worker, NULL));
    kept = make_result(&kept_run);
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

static int take_for_good(const char *bytes, size_t length, mb_error *err)
{
    int64_t run = 0;
    mb_store *result = make_result(&run);
    int rc = mb_store_absorb(result, run, bytes, length, err);
    if (rc != MB_OK && !is_empty(result))
        abort();
    if (rc != MB_OK)
        must(mb_store_absorb(result, run, good.data, good.length, NULL));
    must(mb_store_close(result, NULL));
    return rc;
}

static int take_for_now(const char *bytes, size_t length, mb_error *err)
{
    must(store_begin(kept, NULL));
    int rc = absorb_rows(kept, kept_run, bytes, length, err);
    store_end(kept, MB_E_STOP, NULL);
    if (!is_empty(kept))
        abort();
    if (rc != MB_OK) {
        must(store_begin(kept, NULL));
        must(absorb_rows(kept, kept_run, good.data, good.length, NULL));
        store_end(kept, MB_E_STOP, NULL);
    }
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t length = 0;
    mb_error err = {0};
    if (!good.length)
        make();
    char *bytes = stored_bytes(good.data, good.length, data, size, &length);
    int rc =
        stored_is_one_of_64(data, size) ? take_for_good(bytes, length, &err) : take_for_now(bytes, length, &err);
    if (rc != MB_OK && !err.text[0])
        abort();
    free(bytes);
    return 0;
}
