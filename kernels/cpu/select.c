/*
 * select.c - the best k entries of a score row, exactly, and the fewest that hold a share p of the total.
 *
 * Order of entries: higher score first, equal scores (+0 and -0 are equal) by lower index, NaN after every
 * number; -INFINITY is never chosen. Scores are mapped to unsigned keys of the same order; a radix selection
 * (11 + 11 + 10 bits) finds the k-th key, and one pass in index order collects, so ids come out ascending.
 */
#include "kernels/cpu/select.h"

typedef struct select_job {
    mb_device *device;
    const mb_top_k *top_k; /* one of the two */
    const mb_top_p *top_p;
    const mb_scores *scores;
    const mb_page_set *chosen;
} select_job;

static int64_t entries_of(const mb_scores *scores, int64_t bh)
{
    int64_t n = ((int64_t)scores->prefix_len[bh / scores->kv_heads] + scores->page - 1) / scores->page;
    return n < scores->stride ? n : scores->stride;
}

bool mb_cpu_cut_find(const uint32_t *keys, int64_t n, int64_t k, mb_cpu_cut_line *line)
{
    static const int shifts[3] = {21, 10, 0}, bits[3] = {11, 11, 10};
    uint32_t prefix = 0, mask = 0;
    int64_t eligible = 0, wanted = k;
    for (int64_t i = 0; i < n; i++)
        eligible += keys[i] != MB_KEY_NEVER;
    *line = (mb_cpu_cut_line){.key = MB_KEY_NEVER, .last_equal = -1};
    if (eligible <= k)
        return eligible > 0;
    if (k <= 0)
        return false;
    for (int pass = 0; pass < 3; pass++) {
        int32_t histogram[2048] = {0};
        uint32_t digit_mask = (1u << bits[pass]) - 1u, digit = digit_mask;
        for (int64_t i = 0; i < n; i++)
            if ((keys[i] & mask) == prefix)
                histogram[(keys[i] >> shifts[pass]) & digit_mask]++;
        while (histogram[digit] < wanted) {
            wanted -= histogram[digit];
            digit--;
        }
        prefix |= digit << shifts[pass];
        mask |= digit_mask << shifts[pass];
    }
    /* prefix is the k-th key; the first `wanted` of its equals belong to the answer. */
    line->key = prefix;
    for (int64_t i = 0; wanted > 0; i++)
        if (keys[i] == prefix && --wanted == 0)
            line->last_equal = i;
    return true;
}

/* Writes the k best of keys in index order; returns how many there were. */
static int32_t collect(const uint32_t *keys, int64_t n, int64_t k, int32_t *ids)
{
    mb_cpu_cut_line line;
    int32_t found = 0;
    if (!mb_cpu_cut_find(keys, n, k, &line))
        return 0;
    for (int64_t i = 0; i < n; i++)
        if (mb_cpu_cut_above(&line, keys[i], i))
            ids[found++] = (int32_t)i;
    return found;
}

static void top_k_piece(void *arg, int64_t bh, int worker)
{
    const select_job *job = arg;
    const mb_top_k *args = job->top_k;
    int64_t n = entries_of(&args->scores, bh), capacity = args->chosen.capacity;
    int64_t k = args->k_dynamic ? args->k_dynamic[bh] : args->k;
    uint32_t *keys = job->device->private_scratch[worker];
    const float *scores = args->scores.values + bh * args->scores.stride;
    k = k < 0 ? 0 : k > capacity ? capacity : k;
    for (int64_t i = 0; i < n; i++)
        keys[i] = mb_cpu_key_of(scores[i]);
    args->chosen.counts[bh] = collect(keys, n, k, args->chosen.ids + bh * capacity);
}

/* Runs a piece for each row, with room for `words` 4-byte words for each entry of the longest row. */
static int run_rows(select_job *job, const char *operation, size_t words, mb_cpu_piece *piece)
{
    const mb_scores *scores = job->scores;
    int64_t longest = 0;
    if (scores->page < 1 || job->chosen->granularity != scores->page || job->chosen->capacity < 0)
        return mb_cpu_fail(job->device, MB_E_BUG, "%s: page %d, chosen pages of %d, capacity %d", operation,
                           scores->page, job->chosen->granularity, job->chosen->capacity);
    for (int32_t b = 0; b < scores->batch; b++) {
        int64_t n = entries_of(scores, (int64_t)b * scores->kv_heads);
        longest = n > longest ? n : longest;
    }
    int rc = mb_cpu_reserve(job->device, 0, (size_t)longest * words * 4 + 64);
    if (rc == MB_OK)
        mb_cpu_run(job->device, (int64_t)scores->batch * scores->kv_heads, piece, job);
    return rc;
}

int mb_cpu_top_k(mb_device *device, const mb_top_k *args)
{
    select_job job = {.device = device, .top_k = args, .scores = &args->scores, .chosen = &args->chosen};
    return run_rows(&job, "top_k", 1, top_k_piece);
}

size_t mb_cpu_top_k_scratch(int32_t batch, int32_t kv_heads, int32_t entries)
{
    (void)batch;
    (void)kv_heads;
    (void)entries;
    return 256; /* the thread's own scratch serves; never 0, so that callers may allocate it blindly */
}

/* Sorts by the upper 32 bits, ascending and stable: three counting passes. tmp has the same size. */
static void sort_pairs(uint64_t *pairs, uint64_t *tmp, int64_t n)
{
    static const int shifts[3] = {32, 43, 54};
    for (int pass = 0; pass < 3; pass++) {
        int64_t start[2048] = {0}, at = 0;
        for (int64_t i = 0; i < n; i++)
            start[(pairs[i] >> shifts[pass]) & 2047u]++;
        for (int d = 0; d < 2048; d++) {
            int64_t count = start[d];
            start[d] = at;
            at += count;
        }
        for (int64_t i = 0; i < n; i++)
            tmp[start[(pairs[i] >> shifts[pass]) & 2047u]++] = pairs[i];
        uint64_t *swap = pairs;
        pairs = tmp;
        tmp = swap;
    }
    memcpy(tmp, pairs, (size_t)n * sizeof *pairs); /* three passes end in the other array */
}

/* Best first, adding up in fp64 in that order, so that p = 1 is reached exactly by the last positive score. */
static void top_p_piece(void *arg, int64_t bh, int worker)
{
    const select_job *job = arg;
    const mb_top_p *args = job->top_p;
    int64_t n = entries_of(&args->scores, bh), eligible = 0, capacity = args->chosen.capacity;
    const float *scores = args->scores.values + bh * args->scores.stride;
    uint64_t *pairs = job->device->private_scratch[worker], *tmp = pairs + n;
    uint32_t *keys = (uint32_t *)(tmp + n);
    int64_t most = args->k_max < capacity ? args->k_max : capacity;
    double total = 0.0, sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        keys[i] = mb_cpu_key_of(scores[i]);
        if (keys[i] != MB_KEY_NEVER)
            pairs[eligible++] = (uint64_t)(~keys[i]) << 32 | (uint64_t)i;
    }
    sort_pairs(pairs, tmp, eligible);
    for (int64_t i = 0; i < eligible; i++) {
        float score = scores[pairs[i] & 0xffffffffu];
        total += score > 0.0f ? (double)score : 0.0;
    }
    int64_t k = 0;
    while (k < eligible && k < most && (k < args->k_min || sum < (double)args->p * total)) {
        float score = scores[pairs[k] & 0xffffffffu];
        sum += score > 0.0f ? (double)score : 0.0;
        k++;
    }
    args->chosen.counts[bh] = collect(keys, n, k, args->chosen.ids + bh * capacity);
}

int mb_cpu_top_p(mb_device *device, const mb_top_p *args)
{
    select_job job = {.device = device, .top_p = args, .scores = &args->scores, .chosen = &args->chosen};
    return run_rows(&job, "top_p", 5, top_p_piece);
}
