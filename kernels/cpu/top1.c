/*
 * top1.c - the sampler's view of the logits: best token and its probability, per row.
 *
 * Reference samplers compute softmax over logits of T and round the probabilities to bf16 or fp16 before they
 * look for the best, which makes near neighbours tie; the lowest id among the ties wins. Rounding
 * is monotone, so the ties of the best are found without writing the softmax: p_max = 1 / sum exp(l - l_max), and
 * the answer is the first id whose rounded probability equals the rounded p_max.
 */
#include "kernels/cpu/cpu.h"

typedef struct top1_job {
    mb_device *device;
    const void *logits;
    int64_t vocab;
    mb_type confidence;
    int32_t *ids;
    float *probability;
} top1_job;

static void top1_piece(void *arg, int64_t row, int worker)
{
    const top1_job *job = arg;
    mb_type type = job->device->type;
    float *line = job->device->private_scratch[worker];
    int64_t vocab = job->vocab, first = row * vocab, best = 0;
    float lane_max[MB_LANES], sums[MB_LANES] = {0}, top = -INFINITY, sum = 0.0f;
    for (int l = 0; l < MB_LANES; l++)
        lane_max[l] = -INFINITY;
    mb_load_row(type, job->logits, first, vocab, line);
    /* Pad to whole lanes with entries that can neither win nor weigh. */
    int64_t padded = mb_cpu_round_up(vocab, MB_LANES);
    for (int64_t j = vocab; j < padded; j++)
        line[j] = -INFINITY;
    for (int64_t j = 0; j < padded; j += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            lane_max[l] = line[j + l] > lane_max[l] ? line[j + l] : lane_max[l];
    for (int l = 0; l < MB_LANES; l++)
        top = lane_max[l] > top ? lane_max[l] : top;
    for (int64_t j = 0; j < padded; j += MB_LANES)
        for (int l = 0; l < MB_LANES; l++)
            sums[l] += mb_exp(line[j + l] - top);
    for (int l = 0; l < MB_LANES; l++)
        sum += sums[l];
    float p = mb_round_to(job->confidence, 1.0f / sum);
    for (int64_t j = 0; j < vocab; j++) {
        /* A probability e times smaller never rounds to the same value. */
        if (!(line[j] > top - 1.0f))
            continue;
        if (line[j] == top ||
            (job->confidence != MB_F32 && mb_round_to(job->confidence, mb_exp(line[j] - top) / sum) == p)) {
            best = j;
            break;
        }
    }
    job->ids[row] = (int32_t)best;
    job->probability[row] = p;
}

int mb_cpu_top1(mb_device *device, const mb_top1 *args)
{
    if (args->vocab < 1 || args->vocab > INT32_MAX)
        return mb_cpu_fail(device, MB_E_BUG, "top1: a vocabulary of %lld", (long long)args->vocab);
    int rc = mb_cpu_reserve(device, 0, (size_t)mb_cpu_round_up(args->vocab, MB_LANES) * sizeof(float));
    top1_job job = {device, args->logits, args->vocab, args->confidence, args->ids, args->probability};
    if (rc == MB_OK)
        mb_cpu_run(device, args->n, top1_piece, &job);
    return rc;
}
