/*
 * attention_cases.cu - the cases of attention_bench.cu: every operation of kernels/cuda/attention.cuh over awkward
 * shapes, on the sm_90a path where it serves and again with that path forbidden.
 *
 * Bounds, as ||out - reference|| / ||reference||: fp32 storage 2e-5, bf16 storage 8e-3 (bf16 probabilities and
 * output); log-sum-exp 2e-4 absolute; masses 1e-4 relative in fp32 and 1e-3 in bf16.
 */
#include "tests/cuda/attention_cases.cuh"

static int failures, cases;

static std::vector<float> download(const Case &c, const void *x, size_t n)
{
    std::vector<float> values(n);
    if (c.type == MB_F32) {
        CHECK(cudaMemcpy(values.data(), x, n * 4, cudaMemcpyDeviceToHost));
        return values;
    }
    std::vector<__nv_bfloat16> half(n);
    CHECK(cudaMemcpy(half.data(), x, n * 2, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < n; i++)
        values[i] = __bfloat162float(half[i]);
    return values;
}

template <typename T> static std::vector<T> download_raw(const T *x, size_t n)
{
    std::vector<T> values(n);
    CHECK(cudaMemcpy(values.data(), x, n * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
}

static void report(const Case &c, const char *what, double error, double bound, const char *note)
{
    cases++;
    if (error <= bound) /* false for NaN */
        return;
    failures++;
    if (failures <= 40)
        printf("FAIL %s: error %.3g > %.3g [%s] type %d heads %d/%d batch %d rows %d D %d block %d prefix %d.. "
               "granularity %d capacity %d\n",
               what, error, bound, note, c.type, c.query_heads, c.kv_heads, c.batch, c.rows, c.head_dim,
               c.block_keys, c.prefix[0], c.granularity, c.page_capacity);
}

/* Relative distance over the states that count; untouched ones must still be NaN. */
static void compare(const Case &c, const char *what, const char *note, const std::vector<float> &out,
                    const std::vector<float> &lse, const std::vector<double> &want,
                    const std::vector<double> &want_lse, const std::vector<int32_t> &active)
{
    double difference = 0.0, norm = 1e-30, worst = 0.0;
    int group = c.query_heads / c.kv_heads, touched = 0;
    for (size_t s = 0; s < want_lse.size(); s++) {
        int a = (int)(s % (size_t)c.query_heads), b = (int)(s / (size_t)c.query_heads / (size_t)c.rows);
        bool live = active.empty() || active[(size_t)(b * c.kv_heads + a / group)];
        for (int d = 0; d < c.head_dim; d++) {
            double x = out[s * (size_t)c.head_dim + (size_t)d], y = want[s * (size_t)c.head_dim + (size_t)d];
            if (!live) {
                touched += !isnan(x);
                continue;
            }
            difference += (x - y) * (x - y);
            norm += y * y;
        }
        if (lse.empty())
            continue;
        if (!live)
            touched += !isnan(lse[s]);
        else if (want_lse[s] == -INFINITY)
            worst = lse[s] == -INFINITY ? worst : INFINITY;
        else if (!(fabs(lse[s] - want_lse[s]) <= worst))
            worst = fabs(lse[s] - want_lse[s]);
    }
    report(c, what, sqrt(difference / norm), c.type == MB_F32 ? 2e-5 : 8e-3, note);
    report(c, "log-sum-exp", worst, 2e-4, note);
    report(c, "inactive heads", touched, 0.0, note);
}

struct Lists {
    std::vector<int32_t> slots, counts;
    int stride = 1;
};

static void run_reference(const Case &c, const Device &d, const Lists &lists, int only, const int32_t *limit,
                          std::vector<double> &out, std::vector<double> &lse, double **lse_device)
{
    int32_t *slots, *counts;
    double *o, *l;
    CHECK(cudaMalloc(&slots, lists.slots.size() * 4 + 4));
    CHECK(cudaMalloc(&counts, lists.counts.size() * 4));
    CHECK(cudaMalloc(&o, d.q_elements * 8));
    CHECK(cudaMalloc(&l, d.states * 8));
    CHECK(cudaMemcpy(slots, lists.slots.data(), lists.slots.size() * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(counts, lists.counts.data(), lists.counts.size() * 4, cudaMemcpyHostToDevice));
    if (c.type == MB_F32)
        reference<<<(unsigned)d.states, 128>>>((float *)d.q, (float *)d.k, (float *)d.v, slots, counts,
                                               lists.stride, c.rows, c.query_heads, c.kv_heads, c.capacity,
                                               c.head_dim, only, limit, o, l);
    else
        reference<<<(unsigned)d.states, 128>>>((__nv_bfloat16 *)d.q, (__nv_bfloat16 *)d.k, (__nv_bfloat16 *)d.v,
                                               slots, counts, lists.stride, c.rows, c.query_heads, c.kv_heads,
                                               c.capacity, c.head_dim, only, limit, o, l);
    CHECK(cudaGetLastError());
    out = download_raw(o, d.q_elements);
    lse = download_raw(l, d.states);
    cudaFree(slots);
    cudaFree(counts);
    cudaFree(o);
    if (lse_device)
        *lse_device = l;
    else
        cudaFree(l);
}

static void poison(const Case &c, Device &d)
{
    CHECK(cudaMemset(d.out, 0xff, d.q_elements * mb_type_size(c.type)));
    CHECK(cudaMemset(d.lse, 0xff, d.states * 4));
    CHECK(cudaMemset(d.mass, 0xff, (size_t)c.batch * c.kv_heads * d.mass_stride * 4));
    CHECK(cudaMemset(d.tile_mass, 0xff, (size_t)c.batch * c.kv_heads * d.mass_stride / 16));
    if (d.workspace_bytes)
        CHECK(cudaMemset(d.workspace, 0xff, d.workspace_bytes));
}

static void poison_cache(const Case &c, Device &d, const std::vector<int32_t> &visible)
{
    int32_t *device;
    CHECK(cudaMalloc(&device, visible.size() * 4));
    CHECK(cudaMemcpy(device, visible.data(), visible.size() * 4, cudaMemcpyHostToDevice));
    for (void *x : {d.k, d.v})
        if (c.type == MB_F32)
            poison_tail<<<(unsigned)(c.batch * c.kv_heads), 256>>>((float *)x, device, c.kv_heads, c.capacity,
                                                                   c.head_dim);
        else
            poison_tail<<<(unsigned)(c.batch * c.kv_heads), 256>>>((__nv_bfloat16 *)x, device, c.kv_heads,
                                                                   c.capacity, c.head_dim);
    CHECK(cudaDeviceSynchronize());
    cudaFree(device);
}

static void compare_mass(const Case &c, const Device &d, const char *note, const double *lse, const float *weight,
                         bool token, bool tile, const std::vector<int32_t> &active, int max_prefix)
{
    size_t n = (size_t)c.batch * c.kv_heads * d.mass_stride;
    double *device;
    CHECK(cudaMalloc(&device, n * 8));
    dim3 grid((unsigned)((d.mass_stride + 127) / 128), (unsigned)(c.batch * c.kv_heads));
    if (c.type == MB_F32)
        reference_mass<<<grid, 128>>>((float *)d.q, (float *)d.k, lse, weight, d.prefix, c.rows, c.query_heads,
                                      c.kv_heads, c.capacity, c.head_dim, d.mass_stride, device);
    else
        reference_mass<<<grid, 128>>>((__nv_bfloat16 *)d.q, (__nv_bfloat16 *)d.k, lse, weight, d.prefix, c.rows,
                                      c.query_heads, c.kv_heads, c.capacity, c.head_dim, d.mass_stride, device);
    CHECK(cudaGetLastError());
    std::vector<double> want = download_raw(device, n);
    std::vector<float> mass = download_raw(d.mass, n), tiles = download_raw(d.tile_mass, n / 64);
    cudaFree(device);
    double difference[2] = {0, 0}, norm[2] = {1e-30, 1e-30};
    int padded = (max_prefix + 63) / 64 * 64;
    for (int head = 0; head < c.batch * c.kv_heads; head++) {
        if (!active.empty() && !active[(size_t)head])
            continue;
        for (int t = 0; t < padded / 64; t++) {
            double sum = 0.0;
            for (int i = 0; i < 64; i++) {
                size_t j = (size_t)head * d.mass_stride + (size_t)(t * 64 + i);
                sum += want[j];
                difference[0] += (mass[j] - want[j]) * (mass[j] - want[j]);
                norm[0] += want[j] * want[j];
            }
            double x = tiles[(size_t)head * d.mass_stride / 64 + (size_t)t];
            difference[1] += (x - sum) * (x - sum);
            norm[1] += sum * sum;
        }
    }
    double bound = c.type == MB_F32 ? 1e-4 : 1e-3;
    if (token)
        report(c, "mass", sqrt(difference[0] / norm[0]), bound, note);
    if (tile)
        report(c, "tile mass", sqrt(difference[1] / norm[1]), bound, note);
}

static void check_dense(const mb_cuda_chip *chip, const Case &c, float scale, bool with_active, bool weighted)
{
    Device d(c, scale);
    std::vector<int32_t> visible, active;
    for (int32_t n : c.prefix)
        visible.push_back(n + c.block_keys < c.capacity ? n + c.block_keys : c.capacity);
    poison_cache(c, d, visible);
    if (with_active) {
        for (int i = 0; i < c.batch * c.kv_heads; i++)
            active.push_back(random_below(3) > 0);
        CHECK(cudaMemcpy(d.active, active.data(), active.size() * 4, cudaMemcpyHostToDevice));
    }
    std::vector<float> weight;
    for (int i = 0; i < c.batch * c.rows; i++)
        weight.push_back(random_below(2) ? 1.0f : (float)random_below(2) * 0.5f);
    weight[0] = 1.0f;
    CHECK(cudaMemcpy(d.weight, weight.data(), weight.size() * 4, cudaMemcpyHostToDevice));
    for (int span = MB_SCOPE_ALL; span <= MB_SCOPE_BLOCK; span++) {
        Lists lists;
        lists.stride = c.capacity;
        lists.slots.resize((size_t)c.batch * c.kv_heads * c.capacity);
        for (int head = 0; head < c.batch * c.kv_heads; head++) {
            int n = c.prefix[(size_t)(head / c.kv_heads)], count = 0;
            int end = visible[(size_t)(head / c.kv_heads)];
            for (int j = span == MB_SCOPE_BLOCK ? n : 0; j < (span == MB_SCOPE_PREFIX ? n : end); j++)
                lists.slots[(size_t)head * c.capacity + (size_t)count++] = j;
            lists.counts.push_back(count);
        }
        std::vector<double> want, want_lse;
        double *lse_device;
        run_reference(c, d, lists, -1, NULL, want, want_lse, &lse_device);
        mb_attention args = d.arguments(c, (mb_scope)span);
        args.rows.max_prefix += random_below(2) ? random_below(200) : 0;
        if (args.rows.max_prefix > c.capacity)
            args.rows.max_prefix = c.capacity;
        args.active = with_active ? d.active : NULL;
        args.row_weight = weighted ? d.weight : NULL;
        /* 0 plain, 1 tile mass, 2 token mass, 3 both, 4 tile mass in a small workspace, 5 the op `mass` */
        for (int products = 0; products < (span == MB_SCOPE_BLOCK ? 1 : 6); products++) {
            char note[64];
            mb_error err = {0};
            snprintf(note, sizeof note, "span %d products %d sm90 %d", span, products, chip->allow_sm90);
            args.mass = products == 2 || products == 3 || products == 5 ? d.mass : NULL;
            args.tile_mass = products == 1 || products == 3 || products == 4 ? d.tile_mass : NULL;
            if (products == 4) {
                mb_attention small = args;
                small.tile_mass = NULL;
                d.reserve(mb_cuda_attend_workspace(chip, c.type, &small));
            } else {
                d.reserve(mb_cuda_attend_workspace(chip, c.type, &args));
            }
            size_t plan = mb_cuda_attention_workspace(chip, c.type, c.batch, c.rows, c.query_heads, c.kv_heads,
                                                      c.head_dim, c.capacity);
            if (products != 1 && products != 3)
                report(c, "planned workspace", plan >= d.workspace_bytes ? 0 : 1, 0, note);
            std::vector<float> first_lse;
            if (products == 5)
                first_lse = download_raw(d.lse, d.states);
            poison(c, d);
            if (products == 5) {
                CHECK(cudaMemcpy(d.lse, first_lse.data(), d.states * 4, cudaMemcpyHostToDevice));
                if (mb_launch_mass(chip, c.type, &args, 0, &err) != 0)
                    die(err.text);
            } else if (mb_launch_attend(chip, c.type, &args, d.workspace, d.workspace_bytes, 0, &err) !=
                       0) {
                die(err.text);
            }
            CHECK(cudaDeviceSynchronize());
            if (products != 5)
                compare(c, "attend", note, download(c, d.out, d.q_elements), download_raw(d.lse, d.states), want,
                        want_lse, active);
            compare_mass(c, d, note, lse_device, args.row_weight, args.mass, args.tile_mass, active,
                         args.rows.max_prefix);
            if (products == 0) { /* bit-equal when repeated */
                std::vector<float> before = download(c, d.out, d.q_elements);
                if (mb_launch_attend(chip, c.type, &args, d.workspace, d.workspace_bytes, 0, &err) != 0)
                    die(err.text);
                CHECK(cudaDeviceSynchronize());
                std::vector<float> after = download(c, d.out, d.q_elements);
                report(c, "repeat", memcmp(before.data(), after.data(), before.size() * 4), 0, note);
            }
        }
        cudaFree(lse_device);
    }
}

static void check_sparse(const mb_cuda_chip *chip, const Case &c, int mode, bool with_active)
{
    Device d(c, 1.0f);
    std::vector<int32_t> visible, active, ids, counts;
    for (int32_t n : c.prefix)
        visible.push_back(n + c.block_keys < c.capacity ? n + c.block_keys : c.capacity);
    poison_cache(c, d, visible);
    if (with_active) {
        for (int i = 0; i < c.batch * c.kv_heads; i++)
            active.push_back(random_below(3) > 0);
        CHECK(cudaMemcpy(d.active, active.data(), active.size() * 4, cudaMemcpyHostToDevice));
    }
    for (int head = 0; head < c.batch * c.kv_heads; head++) {
        int n = c.prefix[(size_t)(head / c.kv_heads)], pages = (n + c.granularity - 1) / c.granularity, count = 0;
        std::vector<int32_t> mine((size_t)c.page_capacity, 0x7fffffff); /* unused entries must not be read */
        for (int page = 0; page < pages && count < c.page_capacity; page++)
            if (mode == 1 || random_unit() * pages < c.page_capacity || (mode == 2 && page == pages - 1))
                mine[(size_t)count++] = page;
        if (mode == 3 && random_below(2))
            count = -1;
        if (mode == 4)
            count = random_below(2) ? 0 : count;
        counts.push_back(count);
        ids.insert(ids.end(), mine.begin(), mine.end());
    }
    int32_t *device_ids, *device_counts;
    CHECK(cudaMalloc(&device_ids, ids.size() * 4 + 4));
    CHECK(cudaMalloc(&device_counts, counts.size() * 4));
    CHECK(cudaMemcpy(device_ids, ids.data(), ids.size() * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_counts, counts.data(), counts.size() * 4, cudaMemcpyHostToDevice));
    mb_page_set pages = {c.granularity, c.page_capacity, device_ids, device_counts};
    for (int span = MB_SCOPE_ALL; span <= MB_SCOPE_PREFIX; span++) {
        Lists lists;
        lists.stride = c.capacity;
        lists.slots.resize((size_t)c.batch * c.kv_heads * c.capacity);
        for (int head = 0; head < c.batch * c.kv_heads; head++) {
            int n = c.prefix[(size_t)(head / c.kv_heads)], count = 0;
            std::vector<char> chosen((size_t)c.capacity, 0);
            for (int i = 0; i < counts[(size_t)head]; i++)
                for (int j = 0; j < c.granularity; j++) {
                    int slot = ids[(size_t)head * (size_t)c.page_capacity + (size_t)i] * c.granularity + j;
                    if (slot < n)
                        chosen[(size_t)slot] = 1;
                }
            for (int j = 0; j < visible[(size_t)(head / c.kv_heads)]; j++)
                if (j >= n ? span == MB_SCOPE_ALL : chosen[(size_t)j] || counts[(size_t)head] < 0)
                    lists.slots[(size_t)head * c.capacity + (size_t)count++] = j;
            lists.counts.push_back(count);
        }
        std::vector<double> want, want_lse;
        run_reference(c, d, lists, -1, NULL, want, want_lse, NULL);
        mb_attention args = d.arguments(c, (mb_scope)span);
        args.pages = &pages;
        args.active = with_active ? d.active : NULL;
        d.reserve(mb_cuda_attend_sparse_workspace(chip, c.type, &args));
        poison(c, d);
        char note[64];
        mb_error err = {0};
        snprintf(note, sizeof note, "span %d mode %d", span, mode);
        if (mb_launch_attend_sparse(chip, c.type, &args, d.workspace, d.workspace_bytes, 0, &err) != 0)
            die(err.text);
        CHECK(cudaDeviceSynchronize());
        compare(c, "attend_sparse", note, download(c, d.out, d.q_elements), download_raw(d.lse, d.states), want,
                want_lse, active);
    }
    cudaFree(device_ids);
    cudaFree(device_counts);
}

static void check_prefill(const mb_cuda_chip *chip, Case c, int first, int n, int block, int sequence)
{
    std::vector<int32_t> visible((size_t)c.batch, first + n), limit;
    Lists lists;
    c.rows = n;
    c.prefix.assign((size_t)c.batch, 0);
    Case q_case = c;
    q_case.batch = 1; /* q and out are one sequence's, the cache is the batch's */
    Device cache(c, c.rising ? 3.0f : 1.0f), d(q_case, c.rising ? 3.0f : 1.0f);
    poison_cache(c, cache, visible);
    std::swap(d.k, cache.k);
    std::swap(d.v, cache.v);
    lists.stride = first + n;
    lists.counts.push_back(first + n);
    for (int j = 0; j < first + n; j++)
        lists.slots.push_back(j);
    for (int i = 0; i < n; i++)
        limit.push_back(((first + i) / block + 1) * block);
    int32_t *device_limit;
    CHECK(cudaMalloc(&device_limit, limit.size() * 4));
    CHECK(cudaMemcpy(device_limit, limit.data(), limit.size() * 4, cudaMemcpyHostToDevice));
    std::vector<double> want, want_lse;
    run_reference(q_case, d, lists, sequence, device_limit, want, want_lse, NULL);
    poison(q_case, d);
    mb_prefill prefill = {{d.k, d.v, c.batch, c.kv_heads, c.capacity, c.head_dim}, sequence, c.query_heads, d.q, first,
                          n, block, d.out};
    char note[96];
    mb_error err = {0};
    snprintf(note, sizeof note, "first %d n %d block %d sequence %d sm90 %d", first, n, block, sequence,
             chip->allow_sm90);
    if (mb_launch_attend_prefill(chip, c.type, &prefill, 0, &err) != 0)
        die(err.text);
    CHECK(cudaDeviceSynchronize());
    compare(q_case, "attend_prefill", note, download(q_case, d.out, d.q_elements), std::vector<float>(), want,
            want_lse, std::vector<int32_t>());
    cudaFree(device_limit);
    std::swap(d.k, cache.k);
    std::swap(d.v, cache.v);
}

int check_all(mb_cuda_chip *chip, int step)
{
    const int groups[] = {1, 4, 6, 7, 8, 16}, rows[] = {1, 4, 8, 16, 32, 64, 5};
    const int small[] = {0, 1, 5, 63, 64, 65, 127, 128, 129, 500, 900};
    const int large[] = {1024, 1100, 1500, 2047, 3000, 4999};
    const int granularities[] = {1, 16, 32, 64, 128},
              dims[] = {128, 128, 64, 128, 256, 128, 80, 128, 96, 128, 512};
    for (int i = 0; i < 84; i += step) {
        Case c;
        int group = groups[i % 6];
        c.kv_heads = 1 + random_below(3);
        c.query_heads = group * c.kv_heads;
        c.rows = rows[(i / 6 + i) % 7];
        c.batch = 1 + random_below(3);
        c.block_keys = random_below(4) ? c.rows : c.rows + random_below(20);
        c.head_dim = dims[i % 11];
        c.type = i % 7 == 6 ? MB_F32 : MB_BF16;
        bool longer = i % 2 == 0;
        int most = 0;
        for (int b = 0; b < c.batch; b++) {
            int n = longer && random_below(5) ? large[random_below(6)] : small[random_below(11)];
            if (i % 10 == 4)
                n = b ? n : 0;
            c.prefix.push_back(n);
            most = n > most ? n : most;
        }
        c.capacity = most + c.block_keys + random_below(3) * 77;
        if (i % 9 == 8)
            c.capacity = most + c.block_keys / 2 + 1; /* the block runs into the end of the cache */
        c.rising = i % 7 == 3 ? most / 2 : 0;
        for (int sm90 = 1; sm90 >= 0; sm90--) {
            chip->allow_sm90 = sm90;
            check_dense(chip, c, i % 5 == 0 || c.rising ? 3.0f : 1.0f, i % 3 == 1, i % 4 == 2);
        }
        c.granularity = granularities[i % 5];
        c.page_capacity = 1 + random_below(i % 3 ? 40 : 600 / c.granularity + 1);
        for (int cut : {0, 11, 13, 18, 21, 22, 27, 31, 32, 38, 41, 42, 47}) { /* as the call is cut, and in other ways */
            chip->sparse_cut = cut;
            check_sparse(chip, c, i % 5, i % 4 == 1);
        }
        chip->sparse_cut = 0;
    }
    printf("dense and sparse: %d comparisons, %d failures\n", cases, failures);
    for (int i = 0; i < 24; i += step) {
        const int lengths[] = {1, 31, 32, 64, 127, 128, 129, 200, 256, 300, 600, 1000},
                  blocks[] = {1, 4, 8, 32, 64, 100};
        Case c;
        c.kv_heads = 1 + random_below(2);
        c.query_heads = groups[i % 6] * c.kv_heads;
        c.batch = 1 + random_below(2);
        c.head_dim = dims[i % 11];
        c.type = i % 8 == 7 ? MB_F32 : MB_BF16;
        int n = lengths[i % 12], first = i % 3 == 0 ? 0 : random_below(700);
        c.capacity = first + n + random_below(2) * 50;
        c.rising = i % 5 == 4 ? (first + n) / 2 : 0;
        for (int sm90 = 1; sm90 >= 0; sm90--) {
            chip->allow_sm90 = sm90;
            check_prefill(chip, c, first, n, blocks[(i / 2) % 6], c.batch - 1);
        }
    }
    chip->allow_sm90 = 1;
    for (int n : {2100, 4000}) {
        if (step > 1)
            break; /* enough row tiles for pairs */
        Case c;
        c.query_heads = 28;
        c.kv_heads = 4;
        c.capacity = 5000;
        c.rising = n == 4000 ? 2500 : 0;
        check_prefill(chip, c, n == 4000 ? 131 : 0, n, 32, 0);
    }
    printf("checks: %d comparisons, %d failures\n", cases, failures);
    return failures;
}
