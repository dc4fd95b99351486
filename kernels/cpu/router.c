/*
 * router.c - which experts a row goes to: logits of the gate in fp32, scores, group-limited top-k, weights.
 *
 * A logit is summed in an order that depends on the width alone, so equal rows of the gate give equal logits and a
 * tie is a tie. Error against real arithmetic: width * 2^-24 relative to sum |h||w|.
 */
#include "kernels/cpu/cpu.h"

#define EXPERTS 16 /* experts of a piece of the product */

typedef struct route_job {
    mb_device *device;
    const mb_router *args;
    float *rows; /* [n][width] fp32 images of hidden */
} route_job;

static void widen_piece(void *arg, int64_t row, int worker)
{
    const route_job *job = arg;
    int64_t width = job->args->width;
    (void)worker;
    mb_load_row(job->device->type, job->args->hidden, row * width, width, job->rows + row * width);
}

static void logits_piece(void *arg, int64_t index, int worker)
{
    const route_job *job = arg;
    const mb_router *args = job->args;
    float *weight = job->device->private_scratch[worker];
    int64_t last = (index + 1) * EXPERTS < args->experts ? (index + 1) * EXPERTS : args->experts;
    for (int64_t e = index * EXPERTS; e < last; e++) {
        mb_load_row(job->device->type, args->weight, e * args->width, args->width, weight);
        for (int64_t r = 0; r < args->n; r++) {
            float z = mb_cpu_dot(job->rows + r * args->width, weight, args->width);
            args->logits[r * args->experts + e] = args->round_logits ? mb_round_to(job->device->type, z) : z;
        }
    }
}

/* Whether a ranks before b where b has the lower index: strictly larger, or a number against NaN. */
static bool beats(float a, float b)
{
    return a > b || (b != b && a == a);
}

/* Marks in open[experts] the experts of the groups_kept best groups. */
static void open_groups(const mb_router *args, const float *choice, bool *open)
{
    int32_t size = args->experts / args->groups;
    float value[MB_EXPERTS_MAX];
    bool kept[MB_EXPERTS_MAX] = {false};
    for (int32_t g = 0; g < args->groups; g++) {
        const float *c = choice + g * size;
        int32_t first = 0, second = -1;
        for (int32_t i = 1; i < size; i++)
            first = beats(c[i], c[first]) ? i : first;
        for (int32_t i = 0; i < size; i++)
            if (i != first && (second < 0 || beats(c[i], c[second])))
                second = i;
        value[g] = second < 0 ? c[first] : c[first] + c[second];
    }
    for (int32_t round = 0; round < args->groups_kept; round++) {
        int32_t best = -1;
        for (int32_t g = 0; g < args->groups; g++)
            if (!kept[g] && (best < 0 || beats(value[g], value[best])))
                best = g;
        kept[best] = true;
    }
    for (int32_t e = 0; e < args->experts; e++)
        open[e] = kept[e / size];
}

/* Scores from logits, in place of a copy: the logits stay as they are. */
static void score_row(const mb_router *args, const float *z, float *s)
{
    float top = z[0], sum = 0.0f;
    if (args->score == MB_SCORE_SIGMOID) {
        for (int32_t e = 0; e < args->experts; e++)
            s[e] = 1.0f / (1.0f + expf(-z[e]));
        return;
    }
    for (int32_t e = 1; e < args->experts; e++)
        top = z[e] > top ? z[e] : top;
    for (int32_t e = 0; e < args->experts; e++)
        sum += s[e] = expf(z[e] - top);
    for (int32_t e = 0; e < args->experts; e++)
        s[e] /= sum;
}

static void choose_piece(void *arg, int64_t row, int worker)
{
    const route_job *job = arg;
    const mb_router *args = job->args;
    float s[MB_EXPERTS_MAX], choice[MB_EXPERTS_MAX], sum = 0.0f;
    bool open[MB_EXPERTS_MAX];
    int32_t *ids = args->ids + row * args->top_k;
    float *weights = args->weights + row * args->top_k;
    (void)worker;
    score_row(args, args->logits + row * args->experts, s);
    for (int32_t e = 0; e < args->experts; e++) {
        choice[e] = args->bias ? s[e] + args->bias[e] : s[e];
        open[e] = true;
    }
    if (args->groups > 1)
        open_groups(args, choice, open);
    for (int32_t k = 0; k < args->top_k; k++) {
        int32_t best = -1;
        for (int32_t e = 0; e < args->experts; e++)
            if (open[e] && (best < 0 || beats(choice[e], choice[best])))
                best = e;
        open[best] = false;
        ids[k] = best;
        sum += s[best];
    }
    for (int32_t k = 0; k < args->top_k; k++) {
        float w = s[ids[k]];
        w = (args->normalise ? w / (sum + 1e-20f) : w) * args->scale;
        if (args->expert_scale) {
            float of_expert;
            mb_load_row(job->device->type, args->expert_scale, ids[k], 1, &of_expert);
            w *= of_expert;
        }
        weights[k] = args->round_weights ? mb_round_to(job->device->type, w) : w;
    }
}

int mb_cpu_route(mb_device *device, const mb_router *args)
{
    if (args->n < 0 || args->width < 1 || args->experts < 1 || args->experts > MB_EXPERTS_MAX ||
        args->groups < 1 || args->experts % args->groups || args->groups_kept < 1 ||
        args->groups_kept > args->groups || args->top_k < 1 || args->top_k > MB_TOP_EXPERTS_MAX ||
        args->top_k > args->experts / args->groups * args->groups_kept)
        return mb_cpu_fail(device, MB_E_BUG, "route: %d of %d experts, %d of %d groups do not fit", args->top_k,
                           args->experts, args->groups_kept, args->groups);
    size_t bytes = (size_t)args->n * (size_t)args->width * sizeof(float) + 64;
    int rc = mb_cpu_reserve(device, bytes, (size_t)mb_cpu_round_up(args->width, MB_LANES) * sizeof(float));
    if (rc != MB_OK)
        return rc;
    route_job job = {device, args, device->shared};
    mb_cpu_run(device, args->n, widen_piece, &job);
    mb_cpu_run(device, (args->experts + EXPERTS - 1) / EXPERTS, logits_piece, &job);
    mb_cpu_run(device, args->n, choose_piece, &job);
    return MB_OK;
}
