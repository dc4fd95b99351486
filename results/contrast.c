/*
 * contrast.c - the paired numbers of two runs: differences of scores, recall and work, ratios of forwards and
 * times, each with an interval; items lost and won; the test of every difference, corrected for their number.
 */
#include "results/contrast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- pairs of one arm ---- */

enum { PAIR_A = VALUES, PAIR_B, CHANNELS }; /* behind the differences: forwards of both sides, for their ratio */

typedef struct pair_list {
    double *values;  /* [n][CHANNELS] */
    int32_t *groups; /* task, ascending */
    size_t n, capacity;
} pair_list;

static bool pair_add(pair_list *p, const contrast_sample *a, const contrast_sample *b, int32_t task)
{
    if (p->n == p->capacity) {
        size_t capacity = p->capacity ? 2 * p->capacity : 256;
        double *values = realloc(p->values, capacity * CHANNELS * sizeof *values);
        p->values = values ? values : p->values;
        int32_t *groups = realloc(p->groups, capacity * sizeof *groups);
        p->groups = groups ? groups : p->groups;
        if (!values || !groups)
            return false;
        p->capacity = capacity;
    }
    double *row = p->values + p->n * CHANNELS;
    for (int v = 0; v < VALUES; v++)
        row[v] = b->values[v] - a->values[v];
    row[PAIR_A] = a->values[VALUE_FORWARDS];
    row[PAIR_B] = b->values[VALUE_FORWARDS];
    p->groups[p->n++] = task;
    return true;
}

/* The pairs from `from` on that both channels have, as arrays; x, y and groups have room for all. */
static size_t gather(const pair_list *p, size_t from, const bool *used, int cx, int cy, double *x, double *y,
                     int32_t *groups)
{
    size_t n = 0;
    for (size_t i = from; i < p->n; i++) {
        const double *row = p->values + i * CHANNELS;
        if (isnan(row[cx]) || isnan(row[cy]) || (used && !used[p->groups[i]]))
            continue;
        x[n] = row[cx];
        y[n] = row[cy];
        groups[n++] = p->groups[i];
    }
    return n;
}

/* Everything that pairs say, of one task (used NULL) or over the used tasks. */
static bool fill_paired(contrast_row *r, const pair_list *p, size_t from, const bool *used)
{
    double *x = malloc((p->n + 1) * sizeof *x), *y = malloc((p->n + 1) * sizeof *y);
    int32_t *groups = malloc((p->n + 1) * sizeof *groups);
    bool enough = x && y && groups;
    const struct {
        int channel;
        interval *to;
    } differences[] = {
        {VALUE_SCORE, &r->score}, {VALUE_WORK, &r->work}, {VALUE_INDEX, &r->index}, {VALUE_MASS, &r->mass}};
    for (size_t d = 0; enough && d < sizeof differences / sizeof *differences; d++) {
        int c = differences[d].channel;
        size_t n = gather(p, from, used, c, c, x, y, groups);
        if (n == 0)
            continue;
        *differences[d].to = paired_interval(x, groups, n);
        if (c != VALUE_SCORE)
            continue;
        r->p = paired_p(x, groups, n);
        for (size_t i = 0; i < n; i++) {
            r->lost += x[i] < 0;
            r->won += x[i] > 0;
        }
    }
    size_t n = enough ? gather(p, from, used, PAIR_B, PAIR_A, x, y, groups) : 0;
    if (n)
        r->forwards = paired_ratio(x, y, groups, n);
    free(x);
    free(y);
    free(groups);
    return enough;
}

/* ---- tasks ---- */

typedef struct moments {
    double sum, squares;
    int64_t n;
} moments;

static void add_score(moments *m, const contrast_sample *s)
{
    double score = s->values[VALUE_SCORE];
    if (isnan(score))
        return;
    m->sum += score;
    m->squares += score * score;
    m->n++;
}

static double mean_of(const moments *m)
{
    return m->n ? m->sum / (double)m->n : NAN;
}

/* Squared standard error of the mean; NAN below two. */
static double error_of(const moments *m)
{
    double mean = mean_of(m), n = (double)m->n;
    return m->n > 1 ? fmax(0, m->squares / n - mean * mean) / (n - 1) : NAN;
}

/* No item in both: the difference of two means, with the normal limit. */
static void fill_unpaired(contrast_row *r, double difference, double variance)
{
    double half = 1.959964 * sqrt(variance);
    r->score = (interval){difference, difference - half, difference + half};
    r->p = variance > 0 ? erfc(fabs(difference) / sqrt(2 * variance)) : NAN;
}

static int compare_arm(const contrast_sample *a, const contrast_sample *b)
{
    int order = strcmp(a->model, b->model);
    order = order ? order : strcmp(a->sampler, b->sampler);
    return order ? order : strcmp(a->config, b->config);
}

static int compare_item(const contrast_sample *a, const contrast_sample *b)
{
    int order = strcmp(a->item, b->item);
    return order ? order : strcmp(a->hash, b->hash);
}

static const contrast_row empty_row = {.score_a = NAN,
                                       .score_b = NAN,
                                       .score = {NAN, NAN, NAN},
                                       .work = {NAN, NAN, NAN},
                                       .index = {NAN, NAN, NAN},
                                       .mass = {NAN, NAN, NAN},
                                       .forwards = {NAN, NAN, NAN},
                                       .p = NAN,
                                       .faster = {NAN, NAN, NAN}};

/* The row is at c->rows[c->count - 1]; NULL: no memory. */
static contrast_row *add_row(contrast *c, const contrast_sample *first, const char *task)
{
    contrast_row *grown = realloc(c->rows, (c->count + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    c->rows = grown;
    contrast_row *r = &grown[c->count++];
    *r = empty_row;
    r->model = first->model;
    r->sampler = first->sampler;
    r->config = first->config;
    r->order = first->config_id;
    r->task = task;
    return r;
}

/* A walk over both sides at once. */
typedef struct walk {
    const contrast_sample *a, *a_end, *b, *b_end;
} walk;

/* Which side's next sample comes first; 0: both are of one group. */
static int next_side(const walk *w, int (*compare)(const contrast_sample *, const contrast_sample *))
{
    if (w->a == w->a_end)
        return w->b == w->b_end ? 0 : 1;
    return w->b == w->b_end ? -1 : compare(w->a, w->b);
}

static int compare_task(const contrast_sample *a, const contrast_sample *b)
{
    return strcmp(a->task, b->task);
}

/* The part of the walk that is of one group, cut off its front. */
static walk cut(walk *w, int (*compare)(const contrast_sample *, const contrast_sample *))
{
    int side = next_side(w, compare);
    const contrast_sample *first = side <= 0 ? w->a : w->b;
    walk part = {w->a, w->a, w->b, w->b};
    while (part.a_end < w->a_end && compare(part.a_end, first) == 0)
        part.a_end++;
    while (part.b_end < w->b_end && compare(part.b_end, first) == 0)
        part.b_end++;
    w->a = part.a_end;
    w->b = part.b_end;
    return part;
}

/* Does any configuration of either run score on the task of this sample? The others are in no mean. */
static bool is_used(const contrast *c, const contrast_sample *like)
{
    const contrast_side *sides[] = {&c->a, &c->b};
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < sides[k]->used_count; i++)
            if (strcmp(sides[k]->used[i]->task, like->task) == 0 &&
                strcmp(sides[k]->used[i]->model, like->model) == 0)
                return true;
    return false;
}

/* One task of an arm. Pairs go to the list. Returns false without memory. */
static bool walk_task(contrast *c, walk w, pair_list *p, int32_t task)
{
    const contrast_sample *first = w.a < w.a_end ? w.a : w.b;
    contrast_row *r = add_row(c, first, first->task);
    moments all[2] = {{0}}, both[2] = {{0}};
    size_t from = p->n;
    if (!r)
        return false;
    r->in_a = w.a < w.a_end;
    r->in_b = w.b < w.b_end;
    while (w.a < w.a_end || w.b < w.b_end) {
        int side = next_side(&w, compare_item);
        const contrast_sample *a = side <= 0 ? w.a++ : NULL, *b = side >= 0 ? w.b++ : NULL;
        if (a)
            add_score(&all[0], a);
        if (b)
            add_score(&all[1], b);
        if (a && b) {
            add_score(&both[0], a);
            add_score(&both[1], b);
            r->n++;
            if (!pair_add(p, a, b, task))
                return false;
        }
        r->only_a += !b;
        r->only_b += !a;
    }
    r->paired = r->n > 0;
    r->score_a = mean_of(r->paired ? &both[0] : &all[0]);
    r->score_b = mean_of(r->paired ? &both[1] : &all[1]);
    if (r->paired)
        return fill_paired(r, p, from, NULL);
    if (r->in_a && r->in_b)
        fill_unpaired(r, r->score_b - r->score_a, error_of(&all[0]) + error_of(&all[1]));
    return true;
}

/* Means over the used tasks that both sides have. */
static bool fill_mean(contrast *c, size_t at, const pair_list *p, const bool *used)
{
    contrast_row *r = &c->rows[at];
    double a = 0, b = 0, variance = 0;
    size_t tasks = 0;
    for (size_t i = at + 1; i < c->count; i++) {
        const contrast_row *t = &c->rows[i];
        r->in_a = r->in_a || t->in_a;
        r->in_b = r->in_b || t->in_b;
        r->paired = r->paired || (t->paired && used[i - at - 1]);
        r->only_a += t->only_a;
        r->only_b += t->only_b;
    }
    for (size_t i = at + 1; i < c->count; i++) {
        const contrast_row *t = &c->rows[i];
        if (!used[i - at - 1] || !t->in_a || !t->in_b || t->paired != r->paired || isnan(t->score.mean))
            continue;
        a += t->score_a;
        b += t->score_b;
        variance += (t->score.high - t->score.low) * (t->score.high - t->score.low) / (4 * 1.959964 * 1.959964);
        r->n += t->n;
        tasks++;
    }
    if (tasks == 0)
        return true;
    r->score_a = a / (double)tasks;
    r->score_b = b / (double)tasks;
    if (r->paired)
        return fill_paired(r, p, 0, used);
    fill_unpaired(r, r->score_b - r->score_a, variance / ((double)tasks * (double)tasks));
    return true;
}

static bool walk_arm(contrast *c, walk w)
{
    pair_list p = {0};
    size_t at = c->count, tasks = 0, most = (size_t)((w.a_end - w.a) + (w.b_end - w.b));
    bool *used = calloc(most + 1, sizeof *used);
    bool enough = used && add_row(c, w.a < w.a_end ? w.a : w.b, "*");
    while (enough && (w.a < w.a_end || w.b < w.b_end)) {
        walk task = cut(&w, compare_task);
        used[tasks] = is_used(c, task.a < task.a_end ? task.a : task.b);
        enough = walk_task(c, task, &p, (int32_t)tasks++);
    }
    enough = enough && fill_mean(c, at, &p, used);
    for (size_t i = at + 1; enough && i < c->count; i++)
        c->rows[i].order = c->rows[at].order; /* a task may be B's alone, whose file counts anew */
    free(used);
    free(p.values);
    free(p.groups);
    return enough;
}

/* ---- times ---- */

interval contrast_faster(const timed_case *a, const timed_case *b)
{
    return times_ratio(&a->us, &b->us);
}

const timed_case *contrast_find_case(const times *t, const timed_case *like)
{
    for (size_t i = 0; i < t->count; i++) {
        const timed_case *c = &t->cases[i];
        if (c->context == like->context && c->batch == like->batch && c->steps == like->steps &&
            strcmp(c->phase, like->phase) == 0 && strcmp(c->model, like->model) == 0 &&
            strcmp(c->sampler, like->sampler) == 0 && strcmp(c->config, like->config) == 0)
            return c;
    }
    return NULL;
}

/* Geometric mean of the cases that belong to a row: phase, and its sampler unless any will do. */
static void mean_faster(const contrast *c, contrast_row *r, const char *phase, bool own_sampler)
{
    double mean = 0, half = 0;
    for (size_t i = 0; i < c->a.times.count && r->cases >= 0; i++) {
        const timed_case *a = &c->a.times.cases[i], *b = contrast_find_case(&c->b.times, a);
        if (!b || strcmp(a->phase, phase) != 0 || strcmp(a->model, r->model) != 0 ||
            strcmp(a->config, r->config) != 0 || (own_sampler && strcmp(a->sampler, r->sampler) != 0))
            continue;
        interval ratio = contrast_faster(a, b);
        mean += log(ratio.mean);
        half += pow(0.5 * (log(ratio.high) - log(ratio.low)), 2); /* NAN stays NAN: no interval */
        r->cases++;
    }
    if (r->cases == 0)
        return;
    mean /= (double)r->cases;
    half = sqrt(half) / (double)r->cases;
    r->faster = (interval){exp(mean), exp(mean - half), exp(mean + half)};
}

/* What was timed under the row's own sampler; where nothing was, blocks of any length, then single steps. */
static void fill_faster(const contrast *c, contrast_row *r)
{
    const struct {
        const char *phase;
        bool own;
    } choices[] = {{"request", true}, {"block", true}, {"block", false}, {"later_step", false}};
    for (size_t i = 0; r->cases == 0 && i < sizeof choices / sizeof *choices; i++)
        mean_faster(c, r, choices[i].phase, choices[i].own);
}

static bool has_arm(const contrast *c, const timed_case *t)
{
    for (size_t i = 0; i < c->count; i++)
        if (strcmp(c->rows[i].config, t->config) == 0 && strcmp(c->rows[i].model, t->model) == 0)
            return true;
    return false;
}

/* Arms that were only timed. */
static bool add_timed(contrast *c, const contrast_side *side, const contrast_side *other)
{
    for (size_t i = 0; i < side->times.count; i++) {
        timed_case *t = &side->times.cases[i];
        if (strcmp(t->phase, "later_step") != 0 || has_arm(c, t))
            continue;
        contrast_sample like = {.model = t->model, .sampler = t->sampler, .config = t->config};
        contrast_row *r = add_row(c, &like, "*");
        if (!r)
            return false;
        bool both = contrast_find_case(&other->times, t) != NULL;
        r->order = INT64_MAX;
        r->in_a = side == &c->a || both;
        r->in_b = side == &c->b || both;
    }
    return true;
}

/* ---- all of it ---- */

static bool only_model(const contrast_side *side, const char **model)
{
    *model = side->count ? side->samples[0].model : side->times.count ? side->times.cases[0].model : NULL;
    for (size_t i = 0; i < side->count; i++)
        if (strcmp(side->samples[i].model, *model) != 0)
            return false;
    for (size_t i = 0; i < side->times.count; i++)
        if (strcmp(side->times.cases[i].model, *model) != 0)
            return false;
    return *model != NULL;
}

static bool rename_model(char **name, const char *to)
{
    free(*name);
    *name = mb_string_copy(to);
    return *name;
}

/* A run of one model against a run of another one: they are put beside each other under A's name. */
static bool join_models(contrast *c)
{
    const char *a, *b;
    if (!only_model(&c->a, &a) || !only_model(&c->b, &b) || strcmp(a, b) == 0)
        return true;
    bool enough = (c->other_model = mb_string_copy(b)) != NULL;
    for (size_t i = 0; enough && i < c->b.count; i++)
        enough = rename_model(&c->b.samples[i].model, a);
    for (size_t i = 0; enough && i < c->b.times.count; i++)
        enough = rename_model(&c->b.times.cases[i].model, a);
    return enough;
}

/* One sample of every model and task on which something scores. */
static bool note_used(contrast *c, contrast_side *side)
{
    side->used = calloc(side->count + 1, sizeof *side->used);
    for (size_t i = 0; side->used && i < side->count; i++) {
        const contrast_sample *s = &side->samples[i];
        if (s->values[VALUE_SCORE] > 0 && !is_used(c, s))
            side->used[side->used_count++] = s;
    }
    return side->used;
}

/* The means are one table of tests, the single tasks another. */
static bool adjust(contrast *c)
{
    double *p = malloc((c->count + 1) * sizeof *p);
    if (!p)
        return false;
    for (int tasks = 0; tasks < 2; tasks++) {
        for (size_t i = 0; i < c->count; i++)
            p[i] = (strcmp(c->rows[i].task, "*") != 0) == tasks ? c->rows[i].p : NAN;
        holm_adjust(p, c->count);
        for (size_t i = 0; i < c->count; i++)
            if (!isnan(p[i]))
                c->rows[i].p = p[i];
    }
    free(p);
    return true;
}

static int compare_rows(const void *x, const void *y)
{
    const contrast_row *a = x, *b = y;
    int order = strcmp(a->model, b->model);
    order = order ? order : strcmp(a->sampler, b->sampler);
    if (order)
        return order;
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    order = strcmp(a->config, b->config);
    return order ? order : strcmp(a->task, b->task); /* "*" is before every letter */
}

int contrast_compute(contrast *c, mb_error *err)
{
    bool enough = join_models(c) && note_used(c, &c->a) && note_used(c, &c->b);
    walk w = {c->a.samples, c->a.samples + c->a.count, c->b.samples, c->b.samples + c->b.count};
    while (enough && (w.a < w.a_end || w.b < w.b_end))
        enough = walk_arm(c, cut(&w, compare_arm));
    enough = enough && add_timed(c, &c->a, &c->b) && add_timed(c, &c->b, &c->a) && adjust(c);
    for (size_t i = 0; enough && i < c->count; i++)
        if (strcmp(c->rows[i].task, "*") == 0)
            fill_faster(c, &c->rows[i]);
    if (enough && c->count)
        qsort(c->rows, c->count, sizeof *c->rows, compare_rows);
    return enough ? MB_OK : mb_no_memory(err, "the comparison of two runs");
}
