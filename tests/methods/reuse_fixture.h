/*
 * reuse_fixture.h - what the tests of methods that keep attention states share: the case, playing it, and the
 * comparison with brute force. For every prefix key the reference knows whose query read it last, so chains of
 * reuse, mixed groups and moving coverage are all one formula.
 */
#ifndef MB_TESTS_METHODS_REUSE_FIXTURE_H
#define MB_TESTS_METHODS_REUSE_FIXTURE_H

#include "tests/methods/cpu_stage.h"
#include "tests/methods/recorder.h"

#include <math.h>

#define KEYS 160
#define ROWS 64 /* batch * block * query heads of the cases here */

static const mb_stage_case small = {.layers = 3,
                                    .kv_heads = 2,
                                    .group = 2,
                                    .head_dim = 16,
                                    .block = 8,
                                    .steps = 5,
                                    .blocks = 3,
                                    .batch = 2,
                                    .prefix = {104, 72},
                                    .seed = 5};

static inline mb_recording record(const mb_stage_case *c)
{
    mb_recording recording;
    mb_error err = {0};
    if (mb_record(&env, c, &recording, &err) != 0)
        fail_msg("%s", err.text);
    return recording;
}

/* readers: [batch*block*Hq][KEYS], as the rows of the output. */
static inline void expect_output(const mb_recording *recording, const mb_stage_event *e,
                                 mb_reader (*readers)[KEYS])
{
    const mb_shape *s = &recording->shape;
    const mb_snapshot *now = mb_recording_at(recording, e->block, e->step, e->layer);
    for (int32_t at = 0; at < s->batch * s->block * s->query_heads; at++) {
        int32_t a = at % s->query_heads, r = at / s->query_heads % s->block, b = at / s->query_heads / s->block;
        double out[256];
        mb_recording_attend(recording, now, b, r, a, readers[at], out);
        for (int32_t i = 0; i < s->head_dim; i++) {
            double got = (double)e->out[at * s->head_dim + i];
            if (!(fabs(got - out[i]) <= 2e-4 * (1.0 + fabs(out[i]))))
                fail_msg("block %d step %d layer %d row %d head %d: %g, expected %g", e->block, e->step, e->layer,
                         r, a, got, out[i]);
        }
    }
}

static inline mb_reader (*new_readers(void))[KEYS]
{
    mb_reader(*readers)[KEYS] = calloc(2 * ROWS, sizeof *readers);
    assert_non_null(readers);
    return readers;
}

static inline void read_all(const mb_recording *recording, const mb_snapshot *query, mb_reader (*readers)[KEYS])
{
    const mb_shape *s = &recording->shape;
    for (int32_t at = 0; at < s->batch * s->block * s->query_heads; at++)
        for (int32_t j = 0; j < KEYS; j++)
            readers[at][j] = (mb_reader){query, at / s->query_heads % s->block};
}

static inline double squared_distance(const mb_recording *recording, const float *x, const float *y, int32_t at_x,
                                      int32_t at_y)
{
    int32_t dim = recording->shape.head_dim;
    double sum = 0;
    for (int32_t i = 0; i < dim; i++) {
        double d = (double)x[at_x * dim + i] - (double)y[at_y * dim + i];
        sum += d * d;
    }
    return sum;
}

#endif
