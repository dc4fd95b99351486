/*
 * test_audit.c - the audit of fixed work catches what it is for: a method that hands out an output it has kept,
 * one that writes nothing, one whose index is not valid; and it passes one that attends honestly.
 */
#include "tests/model/engine_fixture.h"

enum conduct { HONEST, CACHED, SILENT, UNSORTED, TOO_MANY, OPAQUE };

struct own {
    enum conduct conduct;
    const mb_host *host;
    mb_shape shape;
    mb_page_set set;
    void *kept;
    float *kept_lse;
    bool has;
};

static int own_open(void **self, const mb_host *host, const mb_shape *shape, const void *options, mb_error *err)
{
    struct own *o = calloc(1, sizeof *o);
    size_t states = (size_t)shape->batch * (size_t)shape->block * (size_t)shape->query_heads;
    (void)err;
    if (!o)
        return -1;
    *self = o;
    o->conduct = *(const enum conduct *)options;
    o->host = host;
    o->shape = *shape;
    o->kept = host->alloc(host, states * (size_t)shape->head_dim * (size_t)shape->element_size);
    o->kept_lse = host->alloc(host, states * sizeof(float));
    return o->kept && o->kept_lse ? host->pages_alloc(host, 16, 64, &o->set) : -1;
}

static void own_close(void *self)
{
    free(self);
}

/* The first eight pages; device memory is plain memory here. */
static int own_select(void *self, const mb_call *call, mb_selection *out, mb_error *err)
{
    struct own *o = self;
    (void)err;
    if (call->phase == MB_PHASE_COMMIT)
        return 0;
    for (int32_t h = 0; h < o->shape.batch * o->shape.kv_heads; h++) {
        o->set.counts[h] = 8;
        for (int32_t i = 0; i < 8; i++)
            o->set.ids[h * o->set.capacity + i] = o->conduct == UNSORTED ? 7 - i : i;
    }
    out->answer = o->conduct == UNSORTED || o->conduct == TOO_MANY ? MB_SPARSE : MB_ATTEND;
    out->pages = o->conduct == OPAQUE ? NULL : &o->set;
    return 0;
}

static int own_attend(void *self, const mb_call *call, void *out, float *lse, mb_error *err)
{
    struct own *o = self;
    size_t states = (size_t)o->shape.batch * (size_t)call->rows * (size_t)o->shape.query_heads;
    size_t bytes = states * (size_t)o->shape.head_dim * (size_t)o->shape.element_size;
    int rc = 0;
    (void)err;
    if (o->conduct == SILENT)
        return 0;
    if (o->conduct != CACHED || !o->has)
        rc = o->host->attend_pages(o->host, call, &o->set, MB_SCOPE_PREFIX, NULL, o->kept, o->kept_lse);
    o->has = true; /* from here on every layer and step gets the same */
    if (rc == 0)
        rc = o->host->copy(o->host, call, out, o->kept, bytes);
    return rc == 0 ? o->host->copy(o->host, call, lse, o->kept_lse, states * sizeof(float)) : rc;
}

static const mb_method own_method = {.abi = MB_METHOD_ABI,
                                     .size = sizeof(mb_method),
                                     .name = "own",
                                     .options_size = sizeof(enum conduct),
                                     .open = own_open,
                                     .close = own_close,
                                     .select = own_select,
                                     .attend = own_attend};

/* One block of three steps, every denoising forward audited. */
static int audited_as(uint64_t caps, enum conduct conduct, int64_t k, mb_audit *audit, mb_error *err)
{
    mb_method method = own_method;
    method.caps = caps;
    opened o = open_model("models/tiny", MB_BF16, 2);
    mb_session *session = open_session(&o, 2, 320);
    mb_decode_result result = {0};
    assert_int_equal(mb_session_fill_random(session, 256, 3, err), MB_OK);
    mb_attender *attender = open_attender(session, &method, &conduct);
    *audit = (mb_audit){.share = 1, .random = mb_random_seed(5), .k = k};
    mb_measure measure = {.audit = audit};
    mb_session_measure(session, &measure);
    int rc = mb_decode_fixed_work(session, attender, 1, 3, NULL, &result, err);
    assert_int_equal(result.first_count + result.later_count, 0); /* audited forwards have no time */
    mb_decode_result_free(&result);
    mb_attender_close(attender);
    mb_session_close(session);
    close_model(&o);
    return rc;
}

static int audited(enum conduct conduct, int64_t k, mb_audit *audit, mb_error *err)
{
    return audited_as(0, conduct, k, audit, err);
}

static void honest_passes(void **state)
{
    mb_error err = {0};
    mb_audit audit;
    (void)state;
    if (audited(HONEST, 128, &audit, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(audit.forwards, 3);
    assert_int_equal(audit.layers, 3 * 6);
    assert_int_equal(audit.opaque, 0);
}

static void must_be_caught(enum conduct conduct, int64_t k, const char *sentence)
{
    mb_error err = {0};
    mb_audit audit;
    assert_int_equal(audited(conduct, k, &audit, &err), MB_E_SAMPLE);
    if (!strstr(err.text, "audit of method own") || !strstr(err.text, sentence))
        fail_msg("%s", err.text);
}

static void cached_output(void **state)
{
    (void)state;
    must_be_caught(CACHED, 0, "over its index");
}

static void silent_output(void **state)
{
    (void)state;
    must_be_caught(SILENT, 0, "was not written");
}

static void bad_index(void **state)
{
    (void)state;
    must_be_caught(UNSORTED, 0, "ascending and distinct");
    must_be_caught(TOO_MANY, 64, "larger than the budget");
}

static void opaque_is_counted(void **state)
{
    mb_error err = {0};
    mb_audit audit;
    (void)state;
    assert_int_equal(audited(OPAQUE, 0, &audit, &err), MB_OK);
    assert_int_equal(audit.layers, 0);
    assert_int_equal(audit.opaque, 3 * 6);
}

/* A method that adds what other keys gave an earlier forward is no attention over its index, and no cheat: it is
 * counted. What its index may hold is checked all the same. */
static void residual_is_counted(void **state)
{
    mb_error err = {0};
    mb_audit audit;
    (void)state;
    if (audited_as(MB_CAP_RESIDUAL, CACHED, 128, &audit, &err) != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(audit.opaque, 3 * 6);
    assert_int_equal(audited_as(MB_CAP_RESIDUAL, CACHED, 64, &audit, &err), MB_E_SAMPLE);
    assert_non_null(strstr(err.text, "larger than the budget"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(honest_passes),     cmocka_unit_test(cached_output),
                                       cmocka_unit_test(silent_output),     cmocka_unit_test(bad_index),
                                       cmocka_unit_test(opaque_is_counted), cmocka_unit_test(residual_is_counted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
