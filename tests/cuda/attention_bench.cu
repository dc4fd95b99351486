/*
 * attention_bench.cu - checks the CUDA attention kernels against a double-precision reference kernel over awkward
 * shapes, then times the shapes of docs/performance.md. Needs a GPU; not part of `make check`.
 *
 *      cc -c -D_GNU_SOURCE -I. base/text.c
 *      nvcc -O3 -std=c++17 -gencode arch=compute_90a,code=sm_90a -I. -x cu tests/cuda/attention_*.cu \
 *          kernels/cuda/{attend,attend_mma,attend_pages,attend_plain,attend_sm90,mass_mma,mass_sm90,merge}.cu \
 *          kernels/cuda/{prefill_sm90,flash_128,flash_96,flash_256,votes_sm90}.cu text.o -o attention_bench
 *      ./attention_bench [check | quick [STEP] | brief | sparse | cuts | time [GEMM TFLOP/s] | all]
 *
 * Outputs are filled with NaN before every call, cache slots past the visible keys hold NaN, inputs are fresh
 * random numbers for every case. Times are CUDA graph replays between events, median of several; sparse cases walk
 * through many selections so that the keys do not come from the L2 cache.
 */
#include "tests/cuda/attention_cases.cuh"

#include <algorithm>

static double median(std::vector<double> x)
{
    std::sort(x.begin(), x.end());
    return x[x.size() / 2];
}

/* Captures `enqueue` `launches` times and returns the median time of one launch in microseconds. */
template <typename F> static double graph_time(int launches, int replays, F enqueue)
{
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t a, b;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaEventCreate(&a));
    CHECK(cudaEventCreate(&b));
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < launches; i++)
        enqueue(stream, i);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    std::vector<double> times;
    for (int i = 0; i < replays + 2; i++) {
        float ms;
        CHECK(cudaEventRecord(a, stream));
        CHECK(cudaGraphLaunch(exec, stream));
        CHECK(cudaEventRecord(b, stream));
        CHECK(cudaEventSynchronize(b));
        CHECK(cudaEventElapsedTime(&ms, a, b));
        if (i >= 2)
            times.push_back(ms * 1000.0 / launches);
    }
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaEventDestroy(a);
    cudaEventDestroy(b);
    cudaStreamDestroy(stream);
    return median(times);
}

__global__ void copy_kernel(const uint4 *from, uint4 *to, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x * 4;
    for (size_t i = (size_t)blockIdx.x * blockDim.x * 4 + threadIdx.x; i + 3 * blockDim.x < n; i += step) {
        uint4 x[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            x[j] = from[i + j * blockDim.x];
#pragma unroll
        for (int j = 0; j < 4; j++)
            to[i + j * blockDim.x] = x[j];
    }
}

static double copy_rate(void)
{
    size_t bytes = (size_t)4 << 30;
    void *a, *b;
    CHECK(cudaMalloc(&a, bytes));
    CHECK(cudaMalloc(&b, bytes));
    CHECK(cudaMemset(a, 1, bytes));
    double us = graph_time(2, 5, [&](cudaStream_t s, int i) {
        copy_kernel<<<8 * 132, 512, 0, s>>>((uint4 *)(i & 1 ? b : a), (uint4 *)(i & 1 ? a : b), bytes / 16);
    });
    cudaFree(a);
    cudaFree(b);
    return 2.0 * (double)bytes / us * 1e-6;
}

struct Row {
    const char *name;
    int query_heads, kv_heads, batch, keys, rows;
};

static double copy_tbs = 4.2, gemm_tflops = 776.0;

static void print_row(const char *what, const Row &r, double us, double bytes, double flops)
{
    double floor_us = std::max(bytes / copy_tbs, flops / gemm_tflops) * 1e-6;
    printf("%-26s %2d/%d batch %d keys %6d %9.1f us %7.1f TFLOP/s %6.2f TB/s floor %8.1f us x%.2f\n", what,
           r.query_heads, r.kv_heads, r.batch, r.keys, us, flops / us * 1e-6, bytes / us * 1e-6, floor_us,
           us / floor_us);
    fflush(stdout);
}

static void time_dense(const mb_cuda_chip *chip, const Row &r)
{
    Case c;
    c.type = MB_BF16;
    c.query_heads = r.query_heads;
    c.kv_heads = r.kv_heads;
    c.batch = r.batch;
    c.rows = r.rows;
    c.head_dim = 128;
    c.capacity = (r.keys + r.rows + 63) / 64 * 64;
    c.block_keys = r.rows;
    c.prefix.assign((size_t)r.batch, r.keys);
    Device d(c, 1.0f);
    mb_attention args = d.arguments(c, MB_SCOPE_ALL);
    args.rows.max_prefix = r.keys;
    args.tile_mass = d.tile_mass;
    d.reserve(mb_cuda_attend_workspace(chip, MB_BF16, &args));
    args.tile_mass = NULL;
    mb_error err = {0};
    double bytes = 2.0 * r.batch * r.kv_heads * (double)(r.keys + r.rows) * 256.0;
    double flops = 4.0 * r.batch * r.query_heads * r.rows * (double)(r.keys + r.rows) * 128.0;
    int launches = r.batch * r.keys > 300000 ? 4 : 16;
    auto run = [&](cudaStream_t s, int) {
        if (mb_launch_attend(chip, MB_BF16, &args, d.workspace, d.workspace_bytes, s, &err) != 0)
            die(err.text);
    };
    /* Three rounds in turn, so that the clocks that the chip's power limit allows are the same for all. */
    std::vector<double> times[3];
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 3; i++) {
            args.tile_mass = i == 1 ? d.tile_mass : NULL;
            args.mass = i == 2 ? d.mass : NULL;
            times[i].push_back(graph_time(launches, 5, run));
        }
    double plain = median(times[0]), tiles = median(times[1]), mass = median(times[2]);
    print_row(chip->allow_sm90 ? "exact" : "exact, mma.sync", r, plain, bytes, flops);
    print_row("exact + tile mass", r, tiles, bytes, flops);
    print_row("exact + token mass", r, mass, 1.5 * bytes, 1.5 * flops);
    printf("    tile mass x%.3f, token mass x%.3f, plain %.1f .. %.1f us\n", tiles / plain, mass / plain,
           *std::min_element(times[0].begin(), times[0].end()),
           *std::max_element(times[0].begin(), times[0].end()));
}

static void time_sparse(const mb_cuda_chip *chip, const Row &r, int k, int granularity)
{
    constexpr int SETS = 48;
    Case c;
    c.type = MB_BF16;
    c.query_heads = r.query_heads;
    c.kv_heads = r.kv_heads;
    c.batch = r.batch;
    c.rows = r.rows;
    c.head_dim = 128;
    c.capacity = (r.keys + r.rows + 63) / 64 * 64;
    c.block_keys = r.rows;
    c.granularity = granularity;
    c.page_capacity = k / granularity;
    c.prefix.assign((size_t)r.batch, r.keys);
    Device d(c, 1.0f);
    size_t entries = (size_t)c.batch * c.kv_heads * c.page_capacity;
    std::vector<int32_t> ids(entries * SETS), counts((size_t)c.batch * c.kv_heads, c.page_capacity);
    int pages = r.keys / granularity;
    for (size_t i = 0; i < ids.size(); i += (size_t)c.page_capacity) /* one random id in each equal part */
        for (int j = 0; j < c.page_capacity; j++) {
            int64_t from = (int64_t)pages * j / c.page_capacity, to = (int64_t)pages * (j + 1) / c.page_capacity;
            ids[i + (size_t)j] = (int32_t)(from + (int64_t)(random_unit() * (double)(to - from)));
        }
    int32_t *device_ids, *device_counts;
    CHECK(cudaMalloc(&device_ids, ids.size() * 4));
    CHECK(cudaMalloc(&device_counts, counts.size() * 4));
    CHECK(cudaMemcpy(device_ids, ids.data(), ids.size() * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(device_counts, counts.data(), counts.size() * 4, cudaMemcpyHostToDevice));
    mb_attention args = d.arguments(c, MB_SCOPE_ALL);
    args.rows.max_prefix = r.keys;
    mb_error err = {0};
    mb_page_set page = {granularity, c.page_capacity, device_ids, device_counts};
    args.pages = &page;
    d.reserve(mb_cuda_attend_sparse_workspace(chip, MB_BF16, &args));
    double bytes = (2.0 * c.kv_heads * (k + r.rows) + 2.0 * r.query_heads * r.rows) * c.batch * 256.0;
    double flops = 4.0 * c.batch * r.query_heads * r.rows * (double)(k + r.rows) * 128.0;
    for (int cold = 1; cold >= 0; cold--) {
        double us = graph_time(SETS, 7, [&](cudaStream_t s, int i) {
            page.ids = device_ids + (cold ? entries * (size_t)i : 0);
            if (mb_launch_attend_sparse(chip, MB_BF16, &args, d.workspace, d.workspace_bytes, s, &err) !=
                0)
                die(err.text);
        });
        char what[64];
        snprintf(what, sizeof what, "sparse k=%d page %d %s", k, granularity, cold ? "cold" : "warm");
        print_row(what, r, us, bytes, flops);
    }
    cudaFree(device_ids);
    cudaFree(device_counts);
}

static void time_prefill(const mb_cuda_chip *chip, const Row &r, int first)
{
    Case c;
    int n = r.keys - first;
    c.type = MB_BF16;
    c.query_heads = r.query_heads;
    c.kv_heads = r.kv_heads;
    c.batch = 1;
    c.rows = n; /* q and out of [n][query_heads][128] */
    c.head_dim = 128;
    c.capacity = r.keys;
    c.block_keys = 0;
    c.prefix.assign(1, r.keys);
    Device d(c, 1.0f);
    mb_error err = {0};
    double keys = 0.0;
    for (int i = first; i < r.keys; i++)
        keys += (double)((i / 32 + 1) * 32);
    mb_prefill prefill = {d.cache(c), 0, r.query_heads, d.q, first, n, 32, d.out};
    double us = graph_time(1, 5, [&](cudaStream_t s, int) {
        if (mb_launch_attend_prefill(chip, MB_BF16, &prefill, s, &err) != 0)
            die(err.text);
    });
    char what[64];
    snprintf(what, sizeof what, "prefill of %d", n);
    print_row(what, r, us, 2.0 * r.kv_heads * r.keys * 256.0 + 2.0 * n * r.query_heads * 256.0,
              4.0 * r.query_heads * 128.0 * keys);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "all";
    mb_error err = {0};
    mb_cuda_chip chip;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (mb_cuda_chip_probe(0, &chip, &err) != 0)
        die(err.text);
    printf("chip: %d multiprocessors, capability %d, pairs %d, tensor maps %s\n", chip.multiprocessors,
           chip.capability, chip.pair_clusters, chip.encode_tiled ? "yes" : "no");
    int failures = 0;
    if (strcmp(mode, "time") != 0 && strcmp(mode, "brief") != 0 && strcmp(mode, "sparse") != 0 &&
        strcmp(mode, "cuts") != 0)
        failures = check_all(&chip, strcmp(mode, "quick") ? 1 : argc > 2 ? atoi(argv[2]) : 9);
    if (argc > 2 && strcmp(mode, "quick"))
        gemm_tflops = atof(argv[2]);  /* the measured matrix rate, for the floors */
    if (strcmp(mode, "brief") == 0) { /* to compare two builds in one session */
        time_dense(&chip, {"7B", 28, 4, 1, 131072, 32});
        time_dense(&chip, {"7B", 28, 4, 8, 131072, 32});
        time_dense(&chip, {"8B", 32, 8, 8, 131072, 32});
        time_prefill(&chip, {"7B", 28, 4, 1, 32768, 32}, 0);
        time_prefill(&chip, {"7B", 28, 4, 1, 131072, 32}, 0);
    }
    if (strcmp(mode, "sparse") == 0) { /* the cases that FlashInfer is timed with */
        for (int batch = 1; batch <= 8; batch += 7)
            for (int granularity : {1, 16, 64})
                time_sparse(&chip, {"7B", 28, 4, batch, 131072, 32}, 512, granularity);
        for (int batch = 1; batch <= 8; batch += 7)
            time_sparse(&chip, {"7B", 28, 4, batch, 131072, 32}, 2048, 1);
    }
    if (strcmp(mode, "cuts") == 0) /* every way to cut sparse calls */
        for (int kind = 1; kind <= 4; kind++)
            for (int splits = 1; splits <= 8; splits++)
                for (int batch = 1; batch <= 8; batch += 7)
                    for (int k = 512; k <= 2048; k += 1536) {
                        chip.sparse_cut = 10 * kind + splits;
                        printf("cut %d ", chip.sparse_cut);
                        time_sparse(&chip, {"7B", 28, 4, batch, 131072, 32}, k, 1);
                        chip.sparse_cut = 0;
                    }
    if (strcmp(mode, "time") == 0 || strcmp(mode, "all") == 0) {
        copy_tbs = copy_rate();
        printf("copy %.2f TB/s (measured), bf16 GEMM %.0f TFLOP/s (given)\n", copy_tbs, gemm_tflops);
        const Row dense[] = {{"7B", 28, 4, 1, 32768, 32},  {"7B", 28, 4, 1, 131072, 32},
                             {"7B", 28, 4, 8, 131072, 32}, {"1.5B", 12, 2, 8, 131072, 32},
                             {"8B", 32, 8, 1, 131072, 32}, {"8B", 32, 8, 8, 131072, 32}};
        for (const Row &r : dense)
            time_dense(&chip, r);
        for (int keys = 1024; keys <= 8192; keys *= 2) /* which path serves short contexts better */
            for (chip.allow_sm90 = 0; chip.allow_sm90 < 2; chip.allow_sm90++)
                time_dense(&chip, {"7B", 28, 4, 1, keys, 32});
        chip.allow_sm90 = 1;
        for (int batch = 1; batch <= 8; batch *= 8) {
            Row r = {"7B", 28, 4, batch, 131072, 32};
            time_sparse(&chip, r, 512, 1);
            time_sparse(&chip, r, 512, 64);
            time_sparse(&chip, r, 2048, 1);
        }
        Row r = {"8B", 32, 8, 8, 131072, 32};
        time_sparse(&chip, r, 512, 1);
        time_prefill(&chip, {"7B", 28, 4, 1, 32768, 32}, 0);
        time_prefill(&chip, {"7B", 28, 4, 1, 131072, 32}, 0);
        time_prefill(&chip, {"7B", 28, 4, 1, 131072, 32}, 131072 - 4096);
    }
    printf(failures ? "%d FAILURES\n" : "all checks passed or not asked for\n", failures);
    return failures ? 1 : 0;
}
