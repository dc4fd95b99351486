/*
 * draw.c - tokens drawn from the logits of a row: temperature, top_k, top_p, and the entropy of a row.
 *
 * Order as in the families' code (sample_with_temperature_topk_topp of SDAR's generate.py, LLaDA2's method of that
 * name; sample_with_top_p of Fast-dLLM v2 has no top_k): logits / temperature; the k largest, ties with the k-th
 * too; softmax over those, from the likeliest on until the sum in front of a token passes top_p; softmax over what
 * is left. Sums are double precision, in the order of the token ids. torch rounds each of these steps to the
 * storage type, so near a border of top_p it may keep a token more or less; here only the confidence is rounded.
 * [MASK] is never drawn: the reference writes it, which leaves the slot masked for the next step.
 *
 * Random numbers: a draw has the number u = hash(seed of the item, position of the row, step in its block), and
 * takes the first token, in the order of ids, at which the sum passes u. No state is kept between draws, so that a
 * token depends neither on what other arms drew, nor on threads, nor on how a run was cut into sessions; two arms
 * that see the same distribution draw the same token. A new step has a new number: with one number per position a
 * row whose number lies in the tail would never draw a likely token.
 */
#include "model/sampler/sampler.h"

#include "model/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double mb_draw_unit(uint64_t seed, int32_t position, int32_t step)
{
    uint64_t place = (uint64_t)(uint32_t)position << 32 | (uint32_t)step;
    mb_random random = mb_random_seed(seed);
    random = mb_random_seed(mb_random_next(&random) ^ place);
    mb_random_next(&random);
    return mb_random_unit(&random);
}

/* The k-th largest of values[0, n), which are permuted; k from 1 to n. */
static float kth_largest(float *values, int32_t n, int32_t k)
{
    int32_t first = 0, last = n - 1;
    while (first < last) {
        float pivot = values[first + (last - first) / 2];
        int32_t i = first, j = last;
        while (i <= j) {
            while (values[i] > pivot)
                i++;
            while (values[j] < pivot)
                j--;
            if (i <= j) {
                float swap = values[i];
                values[i++] = values[j];
                values[j--] = swap;
            }
        }
        if (k - 1 <= j)
            last = j;
        else if (k - 1 >= i)
            first = i;
        else
            break;
    }
    return values[k - 1];
}

typedef struct candidate {
    double weight;
    int32_t id;
} candidate;

static int heavier(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Zeroes the weights of tokens in front of which the sum is above top_p already. Those lighter than an equal share
 * of 1 - top_p weigh less than that together, so all of them fall and only the others are sorted. */
static int keep_top_p(double *weights, int32_t vocab, double total, double top_p, mb_error *err)
{
    double light = total * (1 - top_p) / vocab, sum = 0;
    int32_t count = 0;
    for (int32_t v = 0; v < vocab; v++)
        count += weights[v] >= light && weights[v] > 0;
    candidate *list = malloc((size_t)(count ? count : 1) * sizeof *list);
    if (!list)
        return mb_no_memory(err, "%d tokens to draw from", count);
    count = 0;
    for (int32_t v = 0; v < vocab; v++) {
        if (weights[v] >= light && weights[v] > 0)
            list[count++] = (candidate){weights[v], v};
        weights[v] = 0;
    }
    qsort(list, (size_t)count, sizeof *list, heavier);
    for (int32_t i = 0; i < count && (i == 0 || sum <= top_p * total); i++) {
        weights[list[i].id] = list[i].weight;
        sum += list[i].weight;
    }
    free(list);
    return MB_OK;
}

static double sum_of(const double *weights, int32_t vocab)
{
    double sum = 0;
    for (int32_t v = 0; v < vocab; v++)
        sum += weights[v];
    return sum;
}

/* exp of the scaled logits below the largest, for all tokens. */
static void weigh(const float *logits, int32_t vocab, double temperature, double *weights)
{
    float most = -INFINITY;
    for (int32_t v = 0; v < vocab; v++)
        if (logits[v] > most)
            most = logits[v];
    for (int32_t v = 0; v < vocab; v++)
        weights[v] = exp(((double)logits[v] - (double)most) / temperature);
}

/* Only tokens whose logit is at least that of the k-th. */
static void keep_top_k(mb_draw *draw, const float *logits, const mb_sampling *sampling, int32_t k)
{
    int32_t vocab = sampling->vocab;
    memcpy(draw->scratch, logits, (size_t)vocab * sizeof *logits);
    if (sampling->mask_id >= 0 && sampling->mask_id < vocab)
        draw->scratch[sampling->mask_id] = -INFINITY;
    float least = kth_largest(draw->scratch, vocab, k);
    for (int32_t v = 0; v < vocab; v++)
        if (logits[v] < least)
            draw->weights[v] = 0;
}

int mb_draw_token(const mb_sampling *sampling, const float *logits, double u, mb_draw *draw, mb_error *err)
{
    const mb_sampler *sampler = sampling->sampler;
    int32_t vocab = sampling->vocab, last = -1;
    double *weights = draw->weights;
    weigh(logits, vocab, sampler->temperature, weights);
    double all = sum_of(weights, vocab);
    if (sampling->mask_id >= 0 && sampling->mask_id < vocab)
        weights[sampling->mask_id] = 0;
    if (sampler->top_k > 0 && sampler->top_k < vocab)
        keep_top_k(draw, logits, sampling, sampler->top_k);
    if (sampler->top_p < 1) {
        int rc = keep_top_p(weights, vocab, sum_of(weights, vocab), sampler->top_p, err);
        if (rc < 0)
            return rc;
    }
    double kept = sum_of(weights, vocab), sum = 0;
    for (int32_t v = 0; v < vocab; v++) {
        if (weights[v] <= 0)
            continue;
        last = v; /* rounding may leave the last sum just below the total */
        sum += weights[v];
        if (sum > u * kept)
            break;
    }
    if (last < 0)
        return mb_fail(err, MB_E_SAMPLE, "no token can be drawn: the logits are not finite");
    draw->id = last;
    draw->confidence =
        mb_type_round((float)(weights[last] / (sampler->confidence_over == MB_CONFIDENCE_KEPT ? kept : all)),
                      sampler->confidence);
    return MB_OK;
}

double mb_draw_entropy(const mb_sampling *sampling, const float *logits, double *weights)
{
    double temperature = sampling->sampler->temperature > 0 ? sampling->sampler->temperature : 1, entropy = 0;
    weigh(logits, sampling->vocab, temperature, weights);
    double total = sum_of(weights, sampling->vocab);
    for (int32_t v = 0; v < sampling->vocab; v++)
        if (weights[v] > 0)
            entropy -= weights[v] / total * log(weights[v] / total);
    return entropy;
}

static int make_room(mb_sampling *sampling, mb_error *err)
{
    mb_draw *draw = &sampling->draw;
    size_t n = (size_t)(sampling->vocab > 0 ? sampling->vocab : 1);
    if (draw->weights)
        return MB_OK;
    draw->logits = malloc(n * sizeof *draw->logits);
    draw->scratch = malloc(n * sizeof *draw->scratch);
    draw->weights = malloc(n * sizeof *draw->weights);
    return draw->logits && draw->scratch && draw->weights ? MB_OK
                                                          : mb_no_memory(err, "drawing from %zu tokens", n);
}

void mb_draw_free(mb_draw *draw)
{
    free(draw->logits);
    free(draw->scratch);
    free(draw->weights);
    *draw = (mb_draw){0};
}

int mb_sampling_draw(mb_sampling *sampling, const mb_network *network, const mb_draw_rows *rows, mb_error *err)
{
    const mb_sampler *sampler = sampling->sampler;
    mb_draw *draw = &sampling->draw;
    if (sampler->temperature <= 0 && !rows->entropy)
        return MB_OK;
    if (!network->logits || sampling->vocab < 1)
        return mb_fail(err, MB_E_BUG, "this network gives no logits to draw from");
    int rc = make_room(sampling, err);
    for (int32_t r = 0; rc == MB_OK && r < rows->count; r++) {
        if (rows->wanted && !rows->wanted[r])
            continue;
        rc = network->logits(network->self, r, draw->logits, err);
        if (rc == MB_OK && rows->entropy)
            rows->entropy[r] = (float)mb_draw_entropy(sampling, draw->logits, draw->weights);
        if (rc != MB_OK || sampler->temperature <= 0)
            continue;
        rc = mb_draw_token(sampling, draw->logits, mb_draw_unit(sampling->seed, rows->position + r, rows->step),
                           draw, err);
        rows->best[r] = draw->id;
        rows->confidence[r] = draw->confidence;
    }
    return rc;
}
