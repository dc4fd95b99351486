/*
 * test_mac.c - the states of mac against brute force (reuse_fixture.h): the bookkeeping of matches, the ring and
 * every counter is simulated here in double, row by row; the keys that it reads are counted by hand.
 */
#include "tests/methods/reuse_fixture.h"
#include "properties/tape.h"

#define MOST_RING 4
#define MOST_STEPS 8

typedef struct rules {
    const char *settings;
    double threshold; /* on d^2, or on d^2 / norm */
    bool relative, steps, blocks, any, keep;
    double share;
    int32_t amend, refresh, ring, min_prefix;
    bool commit;
} rules;

typedef struct memory {
    mb_reader (*keys)[KEYS];   /* whose query read each key */
    mb_reader query[ROWS * 2]; /* what a row is matched against */
} memory;

/* Memories that a row is matched against, from young to old; age 0: its own of the step before. */
typedef struct candidates {
    const memory *at[MOST_RING];
    int32_t age[MOST_RING], count;
} candidates;

typedef struct tally {
    int mixed_heads, idle_heads, hits, rows;
    int heads, groups[3]; /* KV heads; of matched ones: all rows hit, some, none */
    int passes;           /* KV heads that read their prefix */
    int mixed_ages;       /* KV heads with rows whose entries have different ages */
    double read;          /* prefix keys, over sequences and KV heads */
} tally;

static void add_tally(tally *to, const tally *t)
{
    to->mixed_heads += t->mixed_heads;
    to->idle_heads += t->idle_heads;
    to->hits += t->hits;
    to->rows += t->rows;
    to->heads += t->heads;
    for (int i = 0; i < 3; i++)
        to->groups[i] += t->groups[i];
    to->passes += t->passes;
    to->mixed_ages += t->mixed_ages;
    to->read += t->read;
}

/* d^2 and norm of row `at` of now against what memory holds for row `from`. */
static double match_distance(const mb_recording *recording, const mb_snapshot *now, const memory *m, int32_t at,
                             int32_t from, bool relative)
{
    const mb_shape *s = &recording->shape;
    int32_t b = from / s->query_heads / s->block, a = from % s->query_heads;
    int32_t stored = (b * s->block + m->query[from].row) * s->query_heads + a;
    const mb_snapshot *query = m->query[from].query;
    double d = squared_distance(recording, now->q_pre, query->q_pre, at, stored), norm = 0;
    for (int32_t i = 0; i < s->head_dim; i++)
        norm += pow((double)query->q_pre[stored * s->head_dim + i], 2);
    return relative ? d / norm : d;
}

static int32_t at_least(int32_t x, int32_t low)
{
    return x > low ? x : low;
}

/* One forward of one layer: decides per row and per KV head, updates the memory, and adds up the keys that are
 * read: the far prefix of a head with misses, the longest band of a head's entries that stay, the tail. */
static tally simulate(const mb_recording *recording, const rules *k, const mb_snapshot *now,
                      const candidates *from, memory *m)
{
    const mb_shape *s = &recording->shape;
    int32_t rows = s->batch * s->block * s->query_heads, group = s->query_heads / s->kv_heads;
    bool missed[ROWS * 2];
    int32_t ages[ROWS * 2] = {0};
    bool any = k->any && from->count > 0 && from->age[0] > 0;
    tally t = {0};
    for (int32_t at = 0; at < rows; at++) {
        int32_t r = at / s->query_heads % s->block, b = at / s->query_heads / s->block, best = -1, place = at;
        double least = INFINITY;
        for (int32_t i = 0; i < from->count; i++)
            for (int32_t slot = any ? 0 : r; slot <= (any ? s->block - 1 : r); slot++) {
                int32_t other = (b * s->block + slot) * s->query_heads + at % s->query_heads;
                double d = match_distance(recording, now, from->at[i], at, other, false);
                if (d < least) {
                    least = d;
                    best = i;
                    place = other;
                }
            }
        missed[at] =
            best < 0 || !(match_distance(recording, now, from->at[best], at, place, k->relative) < k->threshold);
        t.hits += from->count > 0 && !missed[at];
        t.rows += from->count > 0;
        ages[at] = best < 0 ? 0 : from->age[best];
        if (ages[at] > 0) { /* the entry of the matched row, its band, written back under the present query */
            memcpy(m->keys[at], from->at[best]->keys[place], sizeof m->keys[at]);
            for (int32_t j = at_least(now->prefix[b] - k->amend - ages[at] * s->block, 0); j < KEYS; j++)
                m->keys[at][j] = (mb_reader){now, r};
            m->query[at] = (mb_reader){now, r};
        }
    }
    for (int32_t bh = 0; bh < s->batch * s->kv_heads; bh++) {
        int misses = 0, all = s->block * group, prefix = now->prefix[bh / s->kv_heads];
        int32_t first = bh / s->kv_heads * s->block * s->query_heads + bh % s->kv_heads * group, oldest = 0;
        for (int32_t i = 0; i < all; i++)
            misses += missed[first + i / group * s->query_heads + i % group];
        bool active = misses > k->share * all, different = false;
        t.mixed_heads += misses > 0 && misses < all;
        t.idle_heads += !active;
        t.heads++;
        t.passes += active;
        if (from->count > 0)
            t.groups[misses == 0 ? 0 : misses < all ? 1 : 2]++;
        for (int32_t i = 0; i < all; i++) {
            int32_t r = i / group, at = first + r * s->query_heads + i % group;
            different = different || ages[at] != ages[first];
            if (!active || (k->keep && !missed[at])) {
                oldest = at_least(oldest, ages[at]);
                continue;
            }
            for (int32_t j = 0; j < KEYS; j++)
                m->keys[at][j] = (mb_reader){now, r};
            m->query[at] = (mb_reader){now, r};
        }
        t.mixed_ages += different;
        int32_t body = at_least(prefix - k->amend, 0), band = oldest * s->block;
        t.read += (active ? body : 0) + (band < body ? band : body) + (prefix - body);
    }
    return t;
}

/* The output: the memory's readers up to N-amend, the present queries behind. */
static void expect_mac(const mb_recording *recording, const rules *k, const mb_stage_event *e, const memory *m)
{
    const mb_shape *s = &recording->shape;
    const mb_snapshot *now = mb_recording_at(recording, e->block, e->step, e->layer);
    mb_reader(*readers)[KEYS] = new_readers();
    for (int32_t at = 0; at < s->batch * s->block * s->query_heads; at++)
        for (int32_t j = 0; j < KEYS; j++) {
            int32_t end = now->prefix[at / s->query_heads / s->block] - k->amend;
            readers[at][j] = j < end ? m->keys[at][j] : (mb_reader){now, at / s->query_heads % s->block};
        }
    expect_output(recording, e, readers);
    free(readers);
}

static void copy_memory(memory *to, const memory *from)
{
    memcpy(to->keys, from->keys, 2 * ROWS * sizeof *to->keys);
    memcpy(to->query, from->query, sizeof to->query);
}

/* What a layer remembers: its present block, and the first steps of the last ones by block % ring. */
typedef struct layer_memory {
    memory now, ring[MOST_RING];
    int32_t stored[MOST_RING];
} layer_memory;

static void layer_begin(layer_memory *m)
{
    m->now.keys = new_readers();
    for (int i = 0; i < MOST_RING; i++) {
        m->ring[i].keys = new_readers();
        m->stored[i] = -1;
    }
}

static void layer_end(layer_memory *m)
{
    free(m->now.keys);
    for (int i = 0; i < MOST_RING; i++)
        free(m->ring[i].keys);
}

/* What the rows of a forward are matched against. own: a copy of the present block's memory. */
static candidates candidates_of(const rules *k, const layer_memory *m, const memory *own, int32_t block,
                                bool first, bool refresh)
{
    candidates from = {{NULL}, {0}, 0};
    if (!first && !refresh)
        from = (candidates){{own}, {0}, 1};
    for (int32_t age = 1; first && k->blocks && age <= k->ring; age++)
        for (int32_t i = 0; i < k->ring; i++)
            if (m->stored[i] >= 0 && m->stored[i] == block - age) {
                from.at[from.count] = &m->ring[i];
                from.age[from.count++] = age;
            }
    return from;
}

static void expect_close(const char *what, double got, double want)
{
    if (isnan(want) ? !isnan(got) : !(fabs(got - want) < 1e-12))
        fail_msg("%s is %g, expected %g", what, got, want);
}

static double share_of(double part, double all)
{
    return all > 0 ? part / all : NAN;
}

/* Every counter and every place of every map; no others hold anything. */
static void expect_counts(const mb_stage_case *c, const mb_stage_run *run, tally (*by)[MOST_STEPS][8])
{
    tally all = {0}, first = {0};
    for (int32_t step = 0; step < MB_STAGE_STEPS; step++)
        for (int32_t l = 0; l < c->layers; l++) {
            tally none = {0};
            const tally *t = step < MOST_STEPS ? &(*by)[step][l] : &none;
            int matched = t->groups[0] + t->groups[1] + t->groups[2];
            const double want[4][2] = {
                {t->hits, t->rows}, {t->groups[0], matched}, {t->groups[1], matched}, {t->groups[2], matched}};
            for (int map = 0; map < 5; map++) {
                int at = (map * MB_STAGE_STEPS + step) * c->layers + l;
                if (run->maps[at] != (map < 4 ? want[map][0] : 0) ||
                    run->weights[at] != (map < 4 ? want[map][1] : 0))
                    fail_msg("grid %d, step %d, layer %d: %g of %g", map, step, l, run->maps[at],
                             run->weights[at]);
            }
            add_tally(&all, t);
            if (step == 1)
                add_tally(&first, t);
        }
    int matched = all.groups[0] + all.groups[1] + all.groups[2];
    expect_close("hit_rate", run->counters[0], share_of(all.hits, all.rows));
    expect_close("hit_rate_steps", run->counters[1], share_of(all.hits - first.hits, all.rows - first.rows));
    expect_close("hit_rate_blocks", run->counters[2], share_of(first.hits, first.rows));
    expect_close("passes_saved", run->counters[3], share_of(all.heads - all.passes, all.heads));
    for (int i = 0; i < 3; i++)
        expect_close("groups", run->counters[4 + i], share_of(all.groups[i], matched));
}

/* Plays and simulates; steps: what happened at each step of the first layer in the block `watched`. */
static tally check_mac(const mb_stage_case *c, const rules *k, int32_t watched, tally steps[8])
{
    mb_recording recording = record(c);
    mb_stage_run run = play(c, "mac", k->settings);
    memory own = {new_readers(), {{NULL, 0}}};
    tally sum = {0}, by[MOST_STEPS][8] = {{{0}}};
    assert_true(c->steps < MOST_STEPS && c->layers <= 8 && k->ring <= MOST_RING);
    for (int32_t l = 0; l < c->layers; l++) {
        layer_memory m = {0};
        layer_begin(&m);
        for (int32_t block = 0; block < c->blocks; block++)
            for (int32_t i = 1, age = 0; i <= c->steps + 1; i++, age++) {
                int32_t step = i <= c->steps ? i : 0; /* the commit comes last */
                const mb_snapshot *at = mb_recording_at(&recording, block, step, l);
                const mb_stage_event *e = mb_stage_find(&run, block, step, l);
                bool first = step == 1;
                int32_t longest = 0;
                for (int32_t b = 0; b < c->batch; b++)
                    longest = at_least(at->prefix[b], longest);
                if ((!first && !k->steps) || (step == 0 && !k->commit) || longest < k->min_prefix) {
                    assert_int_equal(e->answer.answer, MB_DENSE);
                    continue;
                }
                age = k->refresh > 0 && step > 0 && age >= k->refresh ? 0 : age;
                copy_memory(&own, &m.now);
                candidates from = candidates_of(k, &m, &own, block, first, step > 0 && age == 0);
                tally t = simulate(&recording, k, at, &from, &m.now);
                if (first && k->blocks) {
                    copy_memory(&m.ring[block % k->ring], &m.now);
                    m.stored[block % k->ring] = block;
                }
                if (l == 0 && block == watched && steps)
                    steps[step] = t;
                add_tally(&by[step][l], &t);
                add_tally(&sum, &t);
                expect_mac(&recording, k, e, &m.now);
                double read = step == 0 ? 0 : t.read; /* the work it reports; that of commits is not counted */
                if (e->read != read)
                    fail_msg("block %d step %d layer %d: %g keys read, expected %g", block, step, l, e->read,
                             read);
            }
        layer_end(&m);
    }
    expect_counts(c, &run, &by);
    free(own.keys);
    mb_stage_free(&run);
    mb_recording_free(&recording);
    return sum;
}

static double near_of(double threshold)
{
    return (1 - threshold) * (1 - threshold);
}

static void test_mac_steps(void **state)
{
    const double d = 2.0 * small.head_dim;
    const rules all[] = {
        {"threshold=1", 0, false, true, false, false, true, .amend = 0},                  /* exact */
        {"threshold=-10", d * near_of(-10), false, true, false, false, true, .amend = 0}, /* four chained reuses */
        {"threshold=0.6", d * near_of(0.6), false, true, false, false, true, .amend = 0},
        {"threshold=0.6 mixed=refresh", d * near_of(0.6), false, true, false, false, false, .amend = 0},
        {"threshold=0.6 miss_share=0.5", d * near_of(0.6), false, true, false, false, true, .share = 0.5},
        {"threshold=-10 amend=16", d * near_of(-10), false, true, false, false, true, .amend = 16},
        {"threshold=-10 refresh=2", d * near_of(-10), false, true, false, false, true, .refresh = 2},
        {"threshold=0.65 rule=relative", near_of(0.65), true, true, false, false, true, .amend = 0},
        {"distance=2.3", 2.3 * 2.3, false, true, false, false, true, .amend = 0},
        {"threshold=0.6 commit=reuse", d * near_of(0.6), false, true, false, false, true, .commit = true},
        {"threshold=0.6 min_prefix=112", d * near_of(0.6), false, true, false, false, true, .min_prefix = 112},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        tally t = check_mac(&small, &all[i], -1, NULL);
        print_message("%-32s %d of %d rows hit, %d mixed, %d idle heads\n", all[i].settings, t.hits, t.rows,
                      t.mixed_heads, t.idle_heads);
        assert_int_equal(i == 0 ? 0 : i == 1 || i == 5 ? t.rows : t.hits, t.hits);
        if (i == 2 || i == 3)
            assert_true(t.mixed_heads > 0);
    }
}

/* The paper's authors met a bug in exactly this order: a mixed group, then a step in which everything hits. */
static void test_mac_mixed_then_hit(void **state)
{
    const double d = 2.0 * small.head_dim;
    const rules keep = {"threshold=0.9", d * near_of(0.9), false, true, false, false, true, .amend = 0};
    rules refresh = keep;
    refresh.settings = "threshold=0.9 mixed=refresh";
    refresh.keep = false;
    mb_stage_case c = small;
    tally steps[8];
    (void)state;
    c.still = true;
    c.moving_rows = 3;
    for (int i = 0; i < 2; i++) {
        check_mac(&c, i ? &refresh : &keep, 0, steps);
        assert_int_equal(steps[2].mixed_heads, 4);  /* all KV heads of both sequences */
        assert_int_equal(steps[2].hits, 5 * 2 * 4); /* rows * sequences * query heads */
        for (int step = 3; step <= c.steps; step++)
            assert_int_equal(steps[step].idle_heads, 4);
    }
}

static void test_mac_blocks(void **state)
{
    const double d = 2.0 * small.head_dim;
    const rules all[] = {
        {"axis=blocks ring=1 threshold=-10 amend=16", d * near_of(-10), false, false, true, false, true,
         .amend = 16, .ring = 1},
        {"axis=blocks ring=1 threshold=-10 amend=0", d * near_of(-10), false, false, true, false, true, .ring = 1},
        {"axis=blocks ring=1 threshold=-10 amend=16 match=any", d * near_of(-10), false, false, true, true, true,
         .amend = 16, .ring = 1},
        {"axis=blocks ring=1 threshold=0.3 amend=16", d * near_of(0.3), false, false, true, false, true,
         .amend = 16, .ring = 1},
        {"axis=both ring=1 threshold=-10 amend=16", d * near_of(-10), false, true, true, false, true, .amend = 16,
         .ring = 1},
        {"axis=both ring=1 threshold=0.4 amend=16 match=any", d * near_of(0.4), false, true, true, true, true,
         .amend = 16, .ring = 1},
        {"axis=both ring=1 threshold=0.3 amend=8 mixed=refresh", d * near_of(0.3), false, true, true, false, false,
         .amend = 8, .ring = 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        tally t = check_mac(&small, &all[i], -1, NULL);
        print_message("%-52s %d of %d rows hit, %d mixed\n", all[i].settings, t.hits, t.rows, t.mixed_heads);
        assert_true(t.hits > 0);
    }
}

/* Entries of several blocks: each with its own end, so rows of one KV head need bands of different lengths. The
 * first blocks meet a ring that is not full, later ones one whose places have been written over. */
static void test_mac_ring(void **state)
{
    const double d = 2.0 * small.head_dim;
    const rules all[] = {
        {"axis=blocks ring=2 threshold=-10 amend=16", d * near_of(-10), false, false, true, false, true,
         .amend = 16, .ring = 2},
        {"axis=blocks ring=3 threshold=-10 amend=0 match=any", d * near_of(-10), false, false, true, true, true,
         .ring = 3},
        {"axis=blocks ring=3 threshold=0.35 amend=16 match=any", d * near_of(0.35), false, false, true, true, true,
         .amend = 16, .ring = 3},
        {"axis=blocks ring=3 threshold=0.35 amend=16 match=any mixed=refresh", d * near_of(0.35), false, false,
         true, true, false, .amend = 16, .ring = 3},
        {"axis=blocks ring=3 threshold=0.35 amend=8 miss_share=0.4 match=any", d * near_of(0.35), false, false,
         true, true, true, .share = 0.4, .amend = 8, .ring = 3},
        {"axis=both ring=3 threshold=0.35 amend=8 match=any refresh=3", d * near_of(0.35), false, true, true, true,
         true, .amend = 8, .refresh = 3, .ring = 3},
        {"axis=both ring=3 threshold=0.3 rule=relative amend=16", near_of(0.3), true, true, true, false, true,
         .amend = 16, .ring = 3},
        {"axis=both ring=2 threshold=0.3 amend=16 commit=reuse", d * near_of(0.3), false, true, true, false, true,
         .amend = 16, .ring = 2, .commit = true},
        {"axis=blocks ring=3 threshold=-10 amend=16 min_prefix=120", d * near_of(-10), false, false, true, false,
         true, .amend = 16, .ring = 3, .min_prefix = 120},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (int variant = 0; variant < 3; variant++) {
            mb_stage_case c = small;
            c.blocks = 6;
            c.warmups = variant == 1; /* the ring is full of another request's entries */
            if (variant == 2) {       /* entries that cover nothing yet */
                c.prefix[0] = 24;
                c.prefix[1] = 8;
            }
            tally t = check_mac(&c, &all[i], -1, NULL);
            if (variant == 2)
                continue;
            print_message("%-68s %d of %d rows hit, %d mixed, %d heads of different ages\n", all[i].settings,
                          t.hits, t.rows, t.mixed_heads, t.mixed_ages);
            assert_true(t.hits > 0);
            assert_true(t.mixed_ages > 0);
            if (i >= 2 && i <= 5)
                assert_true(t.mixed_heads > 0);
        }
}

/* A mixed group at a block's first step, out of the ring, then steps in which everything hits, twice over. */
static void test_mac_ring_then_hit(void **state)
{
    const rules keep = {"axis=both ring=3 threshold=0.35 amend=16",
                        2.0 * small.head_dim * near_of(0.35),
                        false,
                        true,
                        true,
                        false,
                        true,
                        .amend = 16,
                        .ring = 3};
    mb_stage_case c = small;
    tally steps[8];
    (void)state;
    c.blocks = 5;
    c.still = true;
    check_mac(&c, &keep, 4, steps);
    assert_true(steps[1].mixed_heads > 0 && steps[1].mixed_ages > 0);
    for (int step = 2; step <= c.steps; step++)
        assert_int_equal(steps[step].idle_heads, 4);
}

/* Replayed forwards, whose hooks never run, are decided, computed and counted as those that run: outputs bit for
 * bit, the keys read, every counter and every place of every map. */
static void test_mac_replayed(void **state)
{
    static const char *const settings[] = {"axis=both ring=3 threshold=0.35 amend=16 match=any commit=reuse",
                                           "axis=blocks ring=2 threshold=0.3 amend=0",
                                           "threshold=0.6 refresh=3 commit=reuse",
                                           "threshold=0.6 miss_share=0.3 amend=8"};
    const mb_method *method = mb_registry_find("mac");
    const mb_kernels *kernels;
    mb_tapes *tapes = mb_tapes_new(env.kernels, &kernels);
    mb_stage_env taped = {kernels, env.device, env.type};
    mb_error err = {0};
    (void)state;
    assert_non_null(tapes);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        mb_stage_case c = small;
        mb_stage_run runs[2];
        void *options = options_of(method, settings[i]);
        c.blocks = 6;
        c.warmups = 1;
        for (int replayed = 0; replayed < 2; replayed++) {
            c.tapes = replayed ? tapes : NULL;
            mb_tapes_clear(tapes);
            if (mb_stage_play(replayed ? &taped : &env, &c, method, options, &runs[replayed], &err) != 0)
                fail_msg("%s: %s", settings[i], err.text);
        }
        /* 2 requests of 6 blocks with 6 forwards each; every kind of forward runs twice before it is replayed. */
        assert_true(mb_tapes_played(tapes) > 2 * 6 * 6 * c.layers * 3 / 4);
        assert_int_equal(runs[0].count, runs[1].count);
        for (size_t e = 0; e < runs[0].count; e++) {
            const mb_stage_event *a = &runs[0].events[e], *b = &runs[1].events[e];
            assert_int_equal(a->answer.answer, b->answer.answer);
            if (a->read != b->read || memcmp(a->out, b->out, runs[0].size * sizeof *a->out) != 0)
                fail_msg("%s: block %d step %d layer %d is another one when replayed", settings[i], a->block,
                         a->step, a->layer);
        }
        assert_memory_equal(runs[0].counters, runs[1].counters, sizeof runs[0].counters);
        size_t places = (size_t)32 * MB_STAGE_STEPS * (size_t)c.layers;
        assert_memory_equal(runs[0].maps, runs[1].maps, places * sizeof(double));
        assert_memory_equal(runs[0].weights, runs[1].weights, places * sizeof(double));
        mb_stage_free(&runs[0]);
        mb_stage_free(&runs[1]);
        free(options);
    }
    mb_tapes_free(tapes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mac_steps),         cmocka_unit_test(test_mac_mixed_then_hit),
        cmocka_unit_test(test_mac_blocks),        cmocka_unit_test(test_mac_ring),
        cmocka_unit_test(test_mac_ring_then_hit), cmocka_unit_test(test_mac_replayed),
    };
    return cmocka_run_group_tests(tests, open_env, close_env);
}
