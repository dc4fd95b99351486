/*
 * gemm.c - matrix products through cuBLASLt, which is loaded with dlopen so that the program starts without it.
 *
 * The first call of a shape measures the candidates that the library proposes and keeps the fastest. Choices are
 * written to a cache file per GPU and library version: a later run takes the same algorithm, so its results are
 * bit-equal to the first run's, and no time is spent. Algorithms that add partial sums in an undefined order are
 * left out.
 */
#include "kernels/cuda/backend.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/table.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define CANDIDATES 32
#define REPEATS 5
#define INVARIANT_ROWS 256  /* eight blocks of 32 */
#define INVARIANT_MOST 512  /* as many rows as a check has */
#define ANY_ROWS (-1)       /* in place of m: an algorithm for every number of rows */
#define CHOICES "choices 4" /* raised when other algorithms may be chosen: older cache files are then not read */

/* One matrix product as cuBLASLt describes it. */
typedef struct problem {
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t weight, input, output;
} problem;

static int load_symbols(mb_cuda_blas *gemm, mb_error *err)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so", NULL};
    for (int i = 0; names[i] && !gemm->library; i++)
        gemm->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!gemm->library)
        return mb_fail(err, MB_E_INPUT,
                       "libcublasLt.so does not load; install the CUDA libraries or use --device cpu");
    const struct {
        const char *name;
        void *slot;
    } symbols[] = {{"cublasLtCreate", &gemm->create},
                   {"cublasLtDestroy", &gemm->destroy},
                   {"cublasLtMatmul", &gemm->matmul},
                   {"cublasLtMatmulDescCreate", &gemm->desc_create},
                   {"cublasLtMatmulDescDestroy", &gemm->desc_destroy},
                   {"cublasLtMatmulDescSetAttribute", &gemm->desc_set},
                   {"cublasLtMatrixLayoutCreate", &gemm->layout_create},
                   {"cublasLtMatrixLayoutDestroy", &gemm->layout_destroy},
                   {"cublasLtMatmulPreferenceCreate", &gemm->preference_create},
                   {"cublasLtMatmulPreferenceDestroy", &gemm->preference_destroy},
                   {"cublasLtMatmulPreferenceSetAttribute", &gemm->preference_set},
                   {"cublasLtMatmulAlgoGetHeuristic", &gemm->heuristic},
                   {"cublasLtMatmulAlgoCheck", &gemm->algorithm_check},
                   {"cublasLtMatmulAlgoConfigGetAttribute", &gemm->algorithm_get},
                   {"cublasLtGetVersion", &gemm->version}};
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *address = dlsym(gemm->library, symbols[i].name);
        if (!address)
            return mb_fail(err, MB_E_INPUT, "libcublasLt.so lacks %s: another version is needed", symbols[i].name);
        memcpy(symbols[i].slot, &address, sizeof address);
    }
    return MB_OK;
}

/* $XDG_CACHE_HOME/maskbench/gemm-HASH.txt, or NULL without a home: then choices live for this process only. */
static char *find_cache_path(const mb_cuda_blas *gemm, const mb_device *device)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char hash[MB_HASH_CAP],
        *identity = mb_string_format("%s|%s|%zu|%s", device->name, device->detail, gemm->version(), CHOICES);
    char *folder = cache && *cache ? mb_string_format("%s/maskbench", cache)
                   : home && *home ? mb_string_format("%s/.cache/maskbench", home)
                                   : NULL;
    char *path = NULL;
    if (identity && folder && mb_folder_make(folder, NULL) == MB_OK) {
        mb_hash_bytes(identity, strlen(identity), hash);
        path = mb_string_format("%s/gemm-%s.txt", folder, hash);
    }
    free(identity);
    free(folder);
    return path;
}

static const cublasLtMatmulAlgo_t *find_choice(const mb_cuda_blas *gemm, int64_t m, int64_t n, int64_t k, int bias,
                                               int type)
{
    for (int i = 0; i < gemm->count; i++) {
        const mb_blas_choice *c = &gemm->choices[i];
        if (c->m == m && c->n == n && c->k == k && c->bias == bias && c->type == type)
            return &c->algorithm;
    }
    return NULL;
}

/* The last place is used again and again where there are too many. */
static const cublasLtMatmulAlgo_t *keep_choice(mb_cuda_blas *gemm, const mb_blas_choice *made)
{
    mb_blas_choice *c = &gemm->choices[gemm->count < MB_BLAS_SHAPES ? gemm->count++ : MB_BLAS_SHAPES - 1];
    *c = *made;
    return &c->algorithm;
}

/* Adds the file's choices. A line: m n k bias type, then the algorithm's words. Lines that do not parse are passed
 * over. */
static void read_cache(mb_cuda_blas *gemm)
{
    char *text = NULL, *rest = NULL;
    size_t size = 0;
    if (!gemm->cache_path || mb_file_read(gemm->cache_path, 1 << 20, &text, &size, NULL) != MB_OK)
        return;
    for (char *line = strtok_r(text, "\n", &rest); line && gemm->count < MB_BLAS_SHAPES;
         line = strtok_r(NULL, "\n", &rest)) {
        mb_blas_choice *c = &gemm->choices[gemm->count];
        long long m, n, k;
        int at = 0, good = sscanf(line, "%lld %lld %lld %d %d%n", &m, &n, &k, &c->bias, &c->type, &at) == 5;
        const char *p = line + at;
        for (size_t i = 0; good && i < sizeof c->algorithm.data / sizeof c->algorithm.data[0]; i++) {
            unsigned long long word;
            int used = 0;
            good = sscanf(p, "%llx%n", &word, &used) == 1;
            c->algorithm.data[i] = word;
            p += used;
        }
        if (good && !find_choice(gemm, m, n, k, c->bias, c->type)) {
            c->m = m;
            c->n = n;
            c->k = k;
            gemm->count++;
        }
    }
    free(text);
}

static void write_cache(const mb_cuda_blas *gemm)
{
    mb_text text = {0};
    for (int i = 0; i < gemm->count; i++) {
        const mb_blas_choice *c = &gemm->choices[i];
        mb_text_printf(&text, "%lld %lld %lld %d %d", (long long)c->m, (long long)c->n, (long long)c->k, c->bias,
                       c->type);
        for (size_t w = 0; w < sizeof c->algorithm.data / sizeof c->algorithm.data[0]; w++)
            mb_text_printf(&text, " %llx", (unsigned long long)c->algorithm.data[w]);
        mb_text_puts(&text, "\n");
    }
    if (gemm->cache_path && !text.failed)
        mb_file_write(gemm->cache_path, text.data, text.length, NULL);
    mb_text_free(&text);
}

int mb_cuda_blas_open(mb_cuda_blas **out, const mb_device *device, mb_error *err)
{
    mb_cuda_blas *gemm = calloc(1, sizeof *gemm);
    *out = gemm;
    if (!gemm)
        return mb_no_memory(err, "the matrix products");
    int rc = load_symbols(gemm, err);
    if (rc != MB_OK)
        return rc;
    if (gemm->create(&gemm->handle) != CUBLAS_STATUS_SUCCESS ||
        cudaMalloc(&gemm->workspace, MB_BLAS_WORKSPACE) != cudaSuccess ||
        cudaEventCreate(&gemm->begin) != cudaSuccess || cudaEventCreate(&gemm->end) != cudaSuccess)
        return mb_fail(err, MB_E_SYSTEM, "cuBLASLt cannot start on %s", device->name);
    gemm->cache_path = find_cache_path(gemm, device);
    read_cache(gemm);
    return MB_OK;
}

void mb_cuda_blas_close(mb_cuda_blas *gemm)
{
    if (!gemm)
        return;
    if (gemm->begin)
        cudaEventDestroy(gemm->begin);
    if (gemm->end)
        cudaEventDestroy(gemm->end);
    cudaFree(gemm->workspace);
    if (gemm->handle)
        gemm->destroy(gemm->handle);
    if (gemm->library)
        dlclose(gemm->library);
    free(gemm->proposals);
    free(gemm->cache_path);
    free(gemm);
}

static void problem_free(const mb_cuda_blas *gemm, problem *p)
{
    if (p->output)
        gemm->layout_destroy(p->output);
    if (p->input)
        gemm->layout_destroy(p->input);
    if (p->weight)
        gemm->layout_destroy(p->weight);
    if (p->operation)
        gemm->desc_destroy(p->operation);
}

/* Row-major out[m][n] = a[m][k] weight[n][k]^T is column-major out(n x m) = weight(k x n)^T a(k x m). */
static cublasStatus_t problem_make(const mb_cuda_blas *gemm, mb_type type, const void *bias, int64_t m, int64_t n,
                                   int64_t k, problem *p)
{
    cudaDataType_t data = type == MB_BF16 ? CUDA_R_16BF : type == MB_F16 ? CUDA_R_16F : CUDA_R_32F;
    cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    memset(p, 0, sizeof *p);
    cublasStatus_t s = gemm->desc_create(&p->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = gemm->desc_set(p->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    if (s == CUBLAS_STATUS_SUCCESS && bias) {
        s = gemm->desc_set(p->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
        if (s == CUBLAS_STATUS_SUCCESS)
            s = gemm->desc_set(p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    }
    if (s == CUBLAS_STATUS_SUCCESS)
        s = gemm->layout_create(&p->weight, data, (uint64_t)k, (uint64_t)n, k);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = gemm->layout_create(&p->input, data, (uint64_t)k, (uint64_t)m, k);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = gemm->layout_create(&p->output, data, (uint64_t)n, (uint64_t)m, n);
    return s;
}

static cublasStatus_t launch(mb_device *device, const problem *p, const cublasLtMatmulAlgo_t *algorithm,
                             const void *a, const void *weight, void *out)
{
    const float one = 1.0f, zero = 0.0f;
    return device->blas->matmul(device->blas->handle, p->operation, &one, weight, p->weight, a, p->input, &zero,
                                out, p->output, out, p->output, algorithm, device->blas->workspace,
                                MB_BLAS_WORKSPACE, device->stream);
}

/* Median is not needed to pick: the smallest of a few runs tells the algorithms apart. In a forward the weights
 * come from memory, so work memory several times the cache is cleared before each. */
static float time_algorithm(mb_device *device, const problem *p, const cublasLtMatmulAlgo_t *algorithm,
                            const void *a, const void *weight, void *out)
{
    mb_cuda_blas *gemm = device->blas;
    float best = 1e30f;
    for (int i = 0; i < REPEATS; i++) {
        float ms = 0;
        cudaMemsetAsync(device->workspace, 0, device->workspace_bytes, device->stream);
        cudaEventRecord(gemm->begin, device->stream);
        if (launch(device, p, algorithm, a, weight, out) != CUBLAS_STATUS_SUCCESS)
            return 1e30f;
        cudaEventRecord(gemm->end, device->stream);
        if (cudaEventSynchronize(gemm->end) != cudaSuccess ||
            cudaEventElapsedTime(&ms, gemm->begin, gemm->end) != cudaSuccess)
            return 1e30f;
        if (i > 0 && ms < best) /* the first one warms up */
            best = ms;
    }
    return best;
}

static int propose(mb_cuda_blas *gemm, const problem *p, cublasLtMatmulHeuristicResult_t *results)
{
    cublasLtMatmulPreference_t preference = NULL;
    uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* none, or partial sums in the workspace, in order */
    size_t bytes = MB_BLAS_WORKSPACE;
    int found = 0;
    if (gemm->preference_create(&preference) != CUBLAS_STATUS_SUCCESS)
        return 0;
    if (gemm->preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes) !=
            CUBLAS_STATUS_SUCCESS ||
        gemm->preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes) !=
            CUBLAS_STATUS_SUCCESS ||
        gemm->heuristic(gemm->handle, p->operation, p->weight, p->input, p->output, p->output, preference,
                        CANDIDATES, results, &found) != CUBLAS_STATUS_SUCCESS)
        found = 0;
    gemm->preference_destroy(preference);
    return found;
}

/* Whether an algorithm rounds once, as kernels.h promises. With a bias those that add partial sums in a kernel of
 * their own do not: they write the sum in T and then add. With T = fp32, the type of the sums, that is no
 * rounding. */
static bool rounds_once(const mb_cuda_blas *gemm, const cublasLtMatmulAlgo_t *algorithm, int bias, mb_type type)
{
    uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
    int32_t splits = 1;
    size_t size = 0;
    if (!bias || type == MB_F32)
        return true;
    return gemm->algorithm_get(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof scheme, &size) ==
               CUBLAS_STATUS_SUCCESS &&
           gemm->algorithm_get(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits, &size) ==
               CUBLAS_STATUS_SUCCESS &&
           scheme == CUBLASLT_REDUCTION_SCHEME_NONE && splits <= 1;
}

/* Whoever meets a shape first on this kind of GPU measures, and all others take over what it chose: workers and
 * ranks that start together compute the same bits. Closing the file unlocks it. What the stream holds is waited
 * for first, since a sum over several GPUs in it may wait for a rank that waits for the lock. */
static int lock_cache(mb_device *device)
{
    char *path = device->blas->cache_path ? mb_string_format("%s.lock", device->blas->cache_path) : NULL;
    int file = path && mb_cuda_sync(device) == MB_OK ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (file >= 0 && flock(file, LOCK_EX) != 0) {
        close(file);
        file = -1;
    }
    free(path);
    return file;
}

/* The stored algorithm of a shape, chosen now if it is new. NULL with a text in the device when there is none. */
static const cublasLtMatmulAlgo_t *choose(mb_device *device, const problem *p, const mb_gemm *args)
{
    const int64_t m = args->m, n = args->n, k = args->k;
    const int bias = args->bias != NULL;
    mb_cuda_blas *gemm = device->blas;
    cublasLtMatmulHeuristicResult_t results[CANDIDATES], check;
    const cublasLtMatmulAlgo_t *known = find_choice(gemm, m, n, k, bias, device->type);
    if (known)
        return known;
    int lock = device->capturing ? -1 : lock_cache(device);
    if (lock >= 0) {
        read_cache(gemm);
        if ((known = find_choice(gemm, m, n, k, bias, device->type)) != NULL) {
            close(lock);
            return known;
        }
    }
    int found = propose(gemm, p, results), best = -1;
    float best_ms = 1e30f;
    for (int i = 0; i < found; i++) {
        if (results[i].state != CUBLAS_STATUS_SUCCESS ||
            !rounds_once(gemm, &results[i].algo, bias, device->type) ||
            gemm->algorithm_check(gemm->handle, p->operation, p->weight, p->input, p->output, p->output,
                                  &results[i].algo, &check) != CUBLAS_STATUS_SUCCESS)
            continue;
        float ms = device->capturing
                       ? (float)i
                       : time_algorithm(device, p, &results[i].algo, args->a, args->weight, args->out);
        if (ms < best_ms) {
            best_ms = ms;
            best = i;
        }
    }
    if (best < 0) {
        if (lock >= 0)
            close(lock);
        mb_fail(&device->error, 0, "cuBLASLt has no algorithm for a %lld x %lld x %lld product", (long long)m,
                (long long)n, (long long)k);
        return NULL;
    }
    known = keep_choice(
        gemm,
        &(mb_blas_choice){
            .m = m, .n = n, .k = k, .bias = bias, .type = (int)device->type, .algorithm = results[best].algo});
    if (!device->capturing)
        write_cache(gemm);
    if (lock >= 0)
        close(lock);
    return known;
}

/* ---- one algorithm for every number of rows ---- */

/* Work memory of a check: an input of INVARIANT_MOST rows and its product. */
typedef struct trial {
    char *input, *product;
    char *host[2]; /* the product of all rows, and of fewer */
} trial;

static void trial_free(trial *t)
{
    free(t->host[0]);
    free(t->host[1]);
}

/* The rows of the call again and again. False: no memory. */
static bool trial_make(mb_device *device, const mb_gemm *args, trial *t)
{
    const size_t width = mb_type_size(device->type), row = (size_t)args->k * width;
    const size_t input = INVARIANT_MOST * row, product = (size_t)INVARIANT_MOST * (size_t)args->n * width;
    *t = (trial){0};
    if (mb_cuda_workspace(device, input + product) != MB_OK)
        return false;
    t->input = device->workspace;
    t->product = t->input + input;
    t->host[0] = malloc(product);
    t->host[1] = malloc(product);
    return t->host[0] && t->host[1];
}

static bool trial_fill(mb_device *device, const mb_gemm *args, const trial *t)
{
    const size_t row = (size_t)args->k * mb_type_size(device->type);
    cudaError_t status = cudaSuccess;
    for (int64_t i = 0; i < INVARIANT_MOST && status == cudaSuccess; i++)
        status = cudaMemcpyAsync(t->input + (size_t)i * row, (const char *)args->a + (size_t)(i % args->m) * row,
                                 row, cudaMemcpyDeviceToDevice, device->stream);
    return status == cudaSuccess;
}

/* The product of the first m rows of the input, on the host. */
static bool trial_run(mb_device *device, const mb_gemm *args, const cublasLtMatmulAlgo_t *algorithm,
                      const trial *t, int64_t m, char *host)
{
    problem p;
    bool good =
        problem_make(device->blas, device->type, args->bias, m, args->n, args->k, &p) == CUBLAS_STATUS_SUCCESS &&
        launch(device, &p, algorithm, t->input, args->weight, t->product) == CUBLAS_STATUS_SUCCESS &&
        mb_cuda_download(device, host, t->product, (size_t)(m * args->n) * mb_type_size(device->type)) == MB_OK;
    problem_free(device->blas, &p);
    return good;
}

/* Whether the rows of a product are the same bits for several numbers of rows. */
static bool rows_agree(mb_device *device, const mb_gemm *args, const cublasLtMatmulAlgo_t *algorithm,
                       const trial *t)
{
    static const int64_t counts[] = {16, 32, 64, 96, 160, 224, 256, 384};
    if (!trial_fill(device, args, t) || !trial_run(device, args, algorithm, t, INVARIANT_MOST, t->host[0]))
        return false;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (!trial_run(device, args, algorithm, t, counts[i], t->host[1]) ||
            memcmp(t->host[0], t->host[1], (size_t)(counts[i] * args->n) * mb_type_size(device->type)) != 0)
            return false;
    return true;
}

/* The fastest of the library's proposals for INVARIANT_ROWS rows whose rows do not notice how many there are:
 * -1 = none. */
static int find_invariant(mb_device *device, const mb_gemm *args, cublasLtMatmulHeuristicResult_t *results)
{
    mb_cuda_blas *gemm = device->blas;
    problem p;
    trial t;
    float ms[CANDIDATES];
    int found = 0, best = -1;
    if (problem_make(gemm, device->type, args->bias, INVARIANT_ROWS, args->n, args->k, &p) ==
        CUBLAS_STATUS_SUCCESS)
        found = propose(gemm, &p, results);
    if (!trial_make(device, args, &t))
        found = 0;
    for (int i = 0; i < found; i++)
        ms[i] = results[i].state == CUBLAS_STATUS_SUCCESS &&
                        rounds_once(gemm, &results[i].algo, args->bias != NULL, device->type)
                    ? time_algorithm(device, &p, &results[i].algo, t.input, args->weight, t.product)
                    : 1e30f;
    for (bool agree = false; !agree;) {
        best = -1;
        for (int i = 0; i < found; i++)
            if (ms[i] < 1e30f && (best < 0 || ms[i] < ms[best]))
                best = i;
        agree = best < 0 || rows_agree(device, args, &results[best].algo, &t);
        if (!agree)
            ms[best] = 1e30f;
    }
    trial_free(&t);
    problem_free(gemm, &p);
    return best;
}

/* The one algorithm of a weight matrix whose rows must not notice how many there are. It is measured and kept as
 * those of one number of rows are. A tile's sums run over k in an order, and split k in parts, that the algorithm
 * fixes; what does otherwise is found out before it is taken. */
static const cublasLtMatmulAlgo_t *choose_invariant(mb_device *device, const mb_gemm *args)
{
    mb_cuda_blas *gemm = device->blas;
    const int bias = args->bias != NULL;
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    const cublasLtMatmulAlgo_t *known = find_choice(gemm, ANY_ROWS, args->n, args->k, bias, device->type);
    if (known)
        return known;
    if (device->capturing) {
        mb_fail(&device->error, 0, "a product of any number of rows, %lld x %lld, first came up in a capture",
                (long long)args->n, (long long)args->k);
        return NULL;
    }
    int lock = lock_cache(device);
    if (lock >= 0)
        read_cache(gemm);
    known = find_choice(gemm, ANY_ROWS, args->n, args->k, bias, device->type);
    int best = known ? -1 : find_invariant(device, args, results);
    if (best >= 0) {
        known = keep_choice(gemm, &(mb_blas_choice){.m = ANY_ROWS,
                                                    .n = args->n,
                                                    .k = args->k,
                                                    .bias = bias,
                                                    .type = (int)device->type,
                                                    .algorithm = results[best].algo});
        write_cache(gemm);
    }
    if (lock >= 0)
        close(lock);
    if (!known)
        mb_fail(&device->error, 0, "cuBLASLt has no algorithm for a product of any number of rows, %lld x %lld",
                (long long)args->n, (long long)args->k);
    return known;
}

int mb_cuda_blas_run(mb_device *device, const mb_gemm *args)
{
    int64_t m = args->m, n = args->n, k = args->k;
    problem p;
    int rc = MB_OK;
    if (m == 0 || n == 0)
        return MB_OK;
    if (problem_make(device->blas, device->type, args->bias, m, n, k, &p) != CUBLAS_STATUS_SUCCESS) {
        rc = mb_fail(&device->error, MB_E_SYSTEM, "cuBLASLt refuses a %lld x %lld x %lld product", (long long)m,
                     (long long)n, (long long)k);
        goto out;
    }
    const cublasLtMatmulAlgo_t *algorithm =
        args->invariant ? choose_invariant(device, args) : choose(device, &p, args);
    if (!algorithm) {
        rc = MB_E_SYSTEM;
        goto out;
    }
    if (launch(device, &p, algorithm, args->a, args->weight, args->out) != CUBLAS_STATUS_SUCCESS)
        rc = mb_fail(&device->error, MB_E_SYSTEM, "a %lld x %lld x %lld product failed to start", (long long)m,
                     (long long)n, (long long)k);
out:
    problem_free(device->blas, &p);
    return rc;
}
