/*
 * model.h - one block-diffusion transformer: checkpoint, tokenizer, KV cache, forward pass, samplers, decoding.
 *
 * What the other rooms see of this one. A checkpoint folder is used as it was downloaded; a named shape with
 * random weights gives a synthetic model. Everything numerical goes through kernels/kernels.h, every sparse
 * decision through methods/method.h; this room names neither a backend nor a method.
 *
 *   mb_model      weights on the device + tokenizer        (one per run)
 *   mb_session    KV cache and work buffers of one batch   (one per context size)
 *   mb_attender   an opened method configuration           (many per session)
 *   mb_decode()   blocks -> denoising steps -> tokens      (one sample, one attender)
 */
#ifndef MB_MODEL_H
#define MB_MODEL_H

#include "base/base.h"
#include "kernels/kernels.h"
#include "methods/method.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- configuration of a model, read from config.json or from a named shape ---- */

typedef enum mb_family {
    MB_FAMILY_SDAR = 0,
    MB_FAMILY_FAST_DLLM_V2 = 1,
    MB_FAMILY_LLADA2 = 2,
    MB_FAMILY_DIFFUSION_GEMMA = 3
} mb_family;

/* "sdar", "fast_dllm_v2", "llada2", "diffusion_gemma": a family as it is stored. */
const char *mb_family_name(mb_family family);

/* Mixture of experts of SDAR-MoE (Qwen3-MoE), LLaDA2 and DiffusionGemma. experts 0: every layer is dense, all else
 * is 0. */
typedef struct mb_moe {
    int32_t experts, per_token;  /* routed experts of a layer; how many of them a token goes to */
    int32_t size, shared;        /* inner width of a routed expert; of the shared one, 0 = there is none */
    int32_t dense_layers;        /* this many layers at the beginning are dense */
    int32_t groups, groups_kept; /* group-limited choice; 1, 1 = among all experts */
    mb_score score;
    mb_combine combine;
    double scale;   /* of the weights */
    bool bias;      /* a bias per expert counts in the choice, not in the weight */
    bool normalise; /* weights of a token add up to scale */
    bool rounded;   /* logits and weights are rounded to T, else fp32 */
    bool beside;    /* the experts stand beside the dense part of their layer, not in its place */
} mb_moe;

/* How RoPE's frequencies are made of theta (model/checkpoint/rope.c). All zero: as they are. */
typedef enum mb_rope_type {
    MB_ROPE_DEFAULT = 0,
    MB_ROPE_LINEAR,
    MB_ROPE_DYNAMIC,
    MB_ROPE_YARN,
    MB_ROPE_LLAMA3,
    MB_ROPE_LONGROPE,
    MB_ROPE_PROPORTIONAL
} mb_rope_type;

#define MB_ROPE_PAIRS_MAX 512
typedef struct mb_rope {
    mb_rope_type type;
    double factor;
    double attention;            /* factor on cosine and sine; 0 = 1 */
    int32_t original;            /* positions before the scaling */
    double beta_fast, beta_slow; /* yarn */
    bool truncate;
    double low_freq, high_freq; /* llama3 */
    int32_t turned;             /* proportional: pairs that turn, the first ones; the others stand still */
    float factors[2][MB_ROPE_PAIRS_MAX]; /* longrope: short, long; one a pair */
} mb_rope;

/* Layers with a sliding window and what they have otherwise than the layers without one. They are exact in every
 * method: methods see the other layers only, numbered among themselves. */
#define MB_LAYERS_MAX 1024
typedef struct mb_local_layers {
    int32_t window; /* a row at position i sees keys from i - window + 1 on; 0: there are no such layers */
    int32_t head_dim, kv_heads, rotary_dim;
    double rope_theta;
    mb_rope rope;
    uint8_t is[MB_LAYERS_MAX]; /* [layers]: 1 = the layer has the window */
} mb_local_layers;

/* Canvas of random tokens in place of masks (DiffusionGemma): what its generation_config.json says. */
typedef struct mb_canvas {
    int32_t steps;        /* most denoising steps of a canvas; 0: the model has masks, not a canvas */
    double entropy_bound; /* nats */
    double hot, cold;     /* temperature of the first step and what it falls to */
    int32_t stable;       /* steps whose best tokens must agree before a canvas ends early */
    double confident;     /* and the mean entropy below which it does */
    int32_t image_ids[3]; /* tokens that stand for images; -1 = none */
} mb_canvas;

typedef struct mb_model_config {
    char name[64]; /* folder name, or the shape's */
    mb_family family;
    int32_t layers, hidden, query_heads, kv_heads, head_dim, intermediate, vocab;
    int32_t rotary_dim; /* dimensions of a head that RoPE turns: the first ones; head_dim = all */
    mb_moe moe;
    int32_t positions; /* max_position_embeddings */
    int32_t block;     /* B: bd_size or block_size */
    int32_t sub_block; /* 8 for Fast-dLLM v2, else B */
    int32_t mask_id;
    int32_t stop_ids[8], stop_count;
    bool edits; /* LLaDA2.1 and later: written tokens are edited unless a sampler says otherwise */
    double rope_theta, norm_eps;
    mb_rope rope;
    bool qkv_bias, qk_norm, tied, norm_one_rounding;
    mb_local_layers local;
    mb_canvas canvas;
    bool wrapped;      /* Gemma's layers: outputs are normalised before they are added (model/engine/wrapped.c) */
    bool value_is_key; /* layers without a window make values of the key projection */
    double softcap;    /* of the logits; 0 = none */
    bool synthetic;    /* random weights: rows are labelled so */
    char files_hash[MB_HASH_CAP]; /* of config.json and generation_config.json as read; a shape: of its name */
} mb_model_config;

/* How a message becomes a prompt. All zero: the folder's chat template where it has one, else the family's format;
 * nothing said about thinking; no system message of the caller's. */
typedef enum mb_chat_source { MB_CHAT_ANY = 0, MB_CHAT_FOLDER, MB_CHAT_FAMILY } mb_chat_source;
typedef enum mb_thinking { MB_THINKING_UNSET = 0, MB_THINKING_ON, MB_THINKING_OFF } mb_thinking;
typedef struct mb_chat {
    mb_chat_source source;
    mb_thinking thinking;
    const char *system; /* NULL = none; copied */
} mb_chat;

/* ---- a model over several devices: tensor parallelism ---- */

/* The ranks of a split model: threads of this process with a device each. Whoever opens a model with a team uses
 * the model, its sessions and attenders as he would any other: what is done with them is done on all ranks, and
 * what it results in is the whole model's. */
typedef struct mb_team mb_team;
/* Rank 0 is the caller's thread and device, opened with these options; the devices of the others are opened here:
 * GPUs of the ordinals [ranks] (NULL: those that follow the first), or CPU devices. Different GPUs add with NCCL,
 * ranks on one GPU and CPUs over host memory. Not more than MB_RANKS_MAX. */
int mb_team_open(mb_team **team, const mb_kernels *kernels, mb_device *device, const mb_device_options *options,
                 int32_t ranks, const int *ordinals, mb_error *err);
/* After the models that were opened with it; the caller's device stays open. */
void mb_team_close(mb_team *team);
/* What one rank of so many computes, as a configuration: sizes memory and a method's shape. MB_E_INPUT where heads
 * or widths do not divide. */
int mb_model_slice(const mb_model_config *whole, int32_t ranks, mb_model_config *slice, mb_error *err);

/* What the caller asks for; zero/NULL = take it from the checkpoint. */
typedef struct mb_model_request {
    const char *path;        /* checkpoint folder, or NULL with shape */
    const char *shape;       /* a row of the table in shapes.c: fast_dllm_v2_7b, sdar_8b, llada2_mini, ... */
    uint64_t seed;           /* random weights */
    int32_t block;           /* overrides B */
    int32_t sub_block;       /* overrides Fast-dLLM v2's 8 */
    int32_t mask;            /* overrides the id of the mask token */
    int32_t positions;       /* overrides max_position_embeddings (synthetic models: up to 2M) */
    const int32_t *stop_ids; /* [stop_count] override the tokens that end a text; borrowed */
    size_t stop_count;
    mb_team *team; /* splits the model; NULL: on one device. Borrowed until the model is closed */
    bool unloaded; /* files are checked and hashed, no weight is loaded: for a plan, nothing can run */
    mb_chat chat;
} mb_model_request;

typedef struct mb_model mb_model;

/* Reads config.json (and the index) only: enough for a plan. */
int mb_model_inspect(const mb_model_request *request, mb_model_config *config, mb_error *err);
/* i-th name that a request's shape may have; NULL past the end. */
const char *mb_model_shape_name(size_t i);
/* Writes a GGUF file as a checkpoint folder, with weights of type F32 (every number is exact) or BF16. The same
 * file gives the same bytes. */
int mb_model_unpack(const char *file, const char *folder, mb_type type, mb_error *err);
/* Device bytes of the weights. */
size_t mb_model_weight_bytes(const mb_model_config *config, mb_type type);
/* Maps, validates and uploads the weights, with a team each rank its slice. kernels and device (of rank 0) stay
 * the caller's and must outlive the model. */
int mb_model_open(mb_model **model, const mb_model_request *request, const mb_kernels *kernels, mb_device *device,
                  mb_type type, mb_error *err);
void mb_model_close(mb_model *model);
const mb_model_config *mb_model_config_of(const mb_model *model);
/* Content hashes of every file that was read, 32 hex digits each: config.json and generation_config.json (which
 * says where a text stops); the weight files with their index (or "shape:seed"); the tokenizer's, with the
 * folder's chat template where prompts are made with it. */
void mb_model_hashes(const mb_model *model, char config[MB_HASH_CAP], char weights[MB_HASH_CAP],
                     char tokenizer[MB_HASH_CAP]);

/* ---- tokenizer: BPE over bytes, or over characters with byte fallback (Hugging Face's tokenizer.json) ---- */

typedef struct mb_tokenizer mb_tokenizer;
int mb_tokenizer_open(mb_tokenizer **tokenizer, const char *folder, mb_error *err);
void mb_tokenizer_close(mb_tokenizer *tokenizer);
/* UTF-8 in (invalid bytes become U+FFFD), ids out; *ids malloc'ed. Added tokens are recognised in the text when
 * special is true, else treated as plain text. */
int mb_tokenizer_encode(const mb_tokenizer *tokenizer, const char *text, size_t length, bool special,
                        int32_t **ids, size_t *n, mb_error *err);
/* The same with special = true, but the text of a special token (one that decoding drops) that begins at a byte of
 * [from, to) is text. MB_E_INPUT where the tokenizer looks for one in normalised text. */
int mb_tokenizer_encode_data(const mb_tokenizer *tokenizer, const char *text, size_t length, size_t from,
                             size_t to, int32_t **ids, size_t *n, mb_error *err);
/* The tokens in front of every text that is no chat (<bos>), as the folder's post processor says; [*n], borrowed.
 * Encoding leaves them out. */
const int32_t *mb_tokenizer_begin(const mb_tokenizer *tokenizer, size_t *n);
/* How often a text holds the text of a special token. */
size_t mb_tokenizer_special_in(const mb_tokenizer *tokenizer, const char *text, size_t length);
/* *text malloc'ed, NUL-terminated UTF-8. skip_special drops added tokens marked special. */
int mb_tokenizer_decode(const mb_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                        char **text, size_t *length, mb_error *err);
/* The id of an added token, or of the vocabulary entry with exactly these bytes; -1 = no such token. */
int32_t mb_tokenizer_id(const mb_tokenizer *tokenizer, const char *token);
const mb_tokenizer *mb_model_tokenizer(const mb_model *model); /* NULL for synthetic models */

/* ---- prompts ---- */

typedef struct mb_prompt_request {
    const char *text;          /* the filled prompt; byte 0 as mb_text_spell() puts it */
    const char *answer_prefix; /* put after the assistant header; "" or NULL */
    bool chat;                 /* as one user message of a chat, the way the model was opened with (mb_chat) */
    int32_t max_tokens;        /* 0 = no limit; else the middle is cut out and the text tokenised again */
    bool cut_joined;           /* LongBench v2's cut in place of v1's */
    bool special_as_text;      /* special tokens that the text spells out stay text: not what Hugging Face does */
    int32_t hard_limit;        /* most tokens of the final prompt: MB_E_SAMPLE beyond it; 0 = no limit */
} mb_prompt_request;

/* The file of the chat template that prompts are made with and the hash of its text; NULL and "": the family's
 * format.
 */
const char *mb_model_chat(const mb_model *model, char hash[MB_HASH_CAP]);

/* *ids malloc'ed. *truncated says whether the middle was cut. Guarantees n <= hard_limit or MB_E_SAMPLE. */
int mb_prompt_build(const mb_model *model, const mb_prompt_request *request, int32_t **ids, size_t *n,
                    bool *truncated, mb_error *err);

/* ---- session: KV cache and buffers ---- */

typedef struct mb_session mb_session;

typedef struct mb_session_request {
    int32_t batch;         /* sequences */
    int32_t capacity;      /* largest prefix + one block, tokens per sequence */
    int32_t prefill_chunk; /* rows per prefill forward; 0 = default */
    bool graphs;           /* capture and replay denoising steps where kernels and method allow */
    int32_t lanes;         /* decodes that may go through the weights together; 0 = 1. Batch 1 */
    int32_t
        answer; /* most new tokens of a decode in a lane, which has a cache for them; 0 = as long as capacity */
    bool invariant; /* a block's bits do not depend on how many are computed with it; costs some speed */
} mb_session_request;

typedef struct mb_memory_plan { /* device bytes */
    size_t weights, kv, activations, logits, statistics, methods, total;
} mb_memory_plan;

/* What a run of this request needs; method_bytes as from mb_attender_bytes(). */
void mb_memory_plan_make(const mb_model_config *config, mb_type type, const mb_session_request *request,
                         size_t method_bytes, mb_memory_plan *plan);
int mb_session_open(mb_session **session, mb_model *model, const mb_session_request *request, mb_error *err);
void mb_session_close(mb_session *session);
/* Prefill floor(n/B)*B tokens of `sequence` block-causally; the tail is kept for the first block. The result is
 * the snapshot every mb_decode() starts from. *us receives the time. */
int mb_session_prefill(mb_session *session, int32_t sequence, const int32_t *ids, size_t n, double *us,
                       mb_error *err);
/* Synthetic: fills `tokens` random keys and values with realistic norms into every sequence. */
int mb_session_fill_random(mb_session *session, int32_t tokens, uint64_t seed, mb_error *err);

/* ---- attender: a method, opened for a session ---- */

typedef struct mb_attender mb_attender;
/* The shape that methods see of a session of this size, before there is one too. steps: scheduled, 0 = adaptive.
 */
void mb_shape_make(const mb_model_config *config, mb_type type, int32_t batch, int32_t capacity, int32_t steps,
                   mb_shape *shape);
size_t mb_attender_bytes(const mb_method *method, const mb_shape *shape, const void *options);
/* The shape that methods of this session see. steps as scheduled (0 = adaptive). */
void mb_session_shape(const mb_session *session, int32_t steps, mb_shape *shape);
/* MB_E_INPUT with *unsupported = true when the method's supports() says no (err holds its reason). Attenders of
 * a session are closed in reverse order of opening (they share one arena). */
int mb_attender_open(mb_attender **attender, mb_session *session, const mb_method *method, const void *options,
                     int32_t steps, uint64_t seed, bool *unsupported, mb_error *err);
void mb_attender_close(mb_attender *attender);

/* Where a method is, for somebody who looks on from outside, e.g. another process through shared memory. */
typedef struct mb_attender_note {
    uint64_t beats;             /* grows with every hook that begins or ends */
    int32_t inside;             /* 1 = the method is running, 0 = hook is the last one that returned */
    int32_t layer, block, step; /* layer -1: the hook belongs to no layer */
    char hook[16];              /* "select"; "" before the first one */
} mb_attender_note;
/* Keeps *note up to date from now on (NULL: no more), and holds the selections of checked forwards to `budget`
 * tokens per KV head, rounded up to pages (0: any number). */
void mb_attender_watch(mb_attender *attender, mb_attender_note *note, int64_t budget);
/* What a method's option "k" promises: tokens per KV head; 0 when there is none, or it has another meaning. */
int64_t mb_attender_budget(const mb_method *method, const void *options);

/* ---- decoding ---- */

typedef enum mb_schedule {
    MB_SCHEDULE_THRESHOLD = 0, /* the family's reference sampler: all above threshold, at least one */
    MB_SCHEDULE_FIXED = 1      /* `steps` denoising steps per block: B/steps best tokens a step */
} mb_schedule;

/* Which masked slots a step of SDAR's rule reveals; n is the step's share of B. Words of SDAR's generate.py. */
typedef enum mb_remasking {
    MB_REMASK_STATIC = 0, /* the n of highest confidence */
    MB_REMASK_DYNAMIC,    /* all above the threshold where those are at least n, else as static */
    MB_REMASK_SEQUENTIAL, /* the first n from left to right */
    MB_REMASK_ENTROPY     /* those of lowest entropy while their sum stays below eb_threshold, at least one */
} mb_remasking;

/* Thresholds that LLaDA2.1's model card names (settings.c). */
typedef enum mb_sampler_mode { MB_SAMPLER_PLAIN = 0, MB_SAMPLER_QUALITY, MB_SAMPLER_SPEED } mb_sampler_mode;

/* A drawn token's confidence is its share of all tokens, or of those that top_k and top_p keep. */
typedef enum mb_confidence_over { MB_CONFIDENCE_ALL = 0, MB_CONFIDENCE_KEPT } mb_confidence_over;

typedef struct mb_sampler {
    mb_schedule schedule;
    int32_t steps;          /* FIXED: 1 .. B; THRESHOLD with SDAR's rule: the least a step reveals is B/steps */
    double threshold;       /* strict >, compared in the confidence type */
    mb_remasking remasking; /* SDAR, LLaDA2 */
    double eb_threshold;    /* nats; MB_REMASK_ENTROPY */
    bool block_cache;       /* Fast-dLLM v2: sub-block calls on the block cache */
    mb_type confidence;     /* rounding of probabilities; family default: BF16, LLaDA2: F32 */
    /* Drawing (draw.c): temperature 0 = the best token, whatever top_k and top_p say. */
    double temperature;
    double top_p;  /* tokens from the likeliest on until their sum passes it; 1 = all */
    int32_t top_k; /* the k likeliest tokens, ties with the k-th too; 0 = all */
    mb_confidence_over confidence_over;
    bool eos_early_stop; /* LLaDA2: a block ends with the step that writes a stop token behind written ones */
    /* LLaDA2.1: a written token gives way to another best token of more confidence; above 1: never. FIXED: never.
     */
    double editing_threshold;
    int32_t max_post_steps; /* most forwards of a block without a mask that look for edits */
    mb_sampler_mode mode;
    bool compat_prompt_bug; /* Fast-dLLM v2's code forgets a prompt of B tokens; default off */
    bool ignore_stop;       /* latency: decode all blocks whatever comes */
} mb_sampler;

/* The family's published defaults. */
void mb_sampler_default(const mb_model_config *config, mb_sampler *sampler);
/* Whether written tokens may be replaced. */
bool mb_sampler_edits(const mb_sampler *sampler);
/* The same under a schedule (FIXED has no edits) and with the thresholds of a mode. */
void mb_sampler_preset(const mb_model_config *config, mb_schedule schedule, mb_sampler_mode mode,
                       mb_sampler *sampler);
/* MB_E_INPUT where a setting has no meaning for the family or beside another one. */
int mb_sampler_check(const mb_model_config *config, const mb_sampler *sampler, mb_error *err);
/* Which version's rule a checkpoint is decoded by and how to choose another; NULL: its family has one rule. */
const char *mb_sampler_origin(const mb_model_config *config);
/* "first_step", "later_step", "commit": a phase as it is stored and shown. */
const char *mb_phase_name(mb_phase phase);

/* One denoising event for --trace and the fixtures. */
typedef struct mb_trace_step {
    int32_t block, step, masked_before;
    char kind; /* 'd' denoise, 's' sub-block denoise, 'C' commit or prefill */
    int32_t prefix, rows, row_offset;
    const int32_t *positions; /* absolute positions unmasked by this step */
    const int32_t *tokens;    /* their tokens */
    int32_t count;
    int32_t edits; /* of these: how many replaced a written token */
} mb_trace_step;

/* Recall of one (layer, step), averaged over blocks of the sample; per KV head. */
typedef struct mb_recall_cell {
    int32_t layer, step;                 /* step 1 .. */
    int32_t blocks;                      /* how many block-steps are averaged */
    double index_recall;                 /* |S n S*|/|S|, mean over KV heads */
    double mass_recall;                  /* mass(S)/mass(S*), mean over KV heads */
    double captured_mass;                /* mass(S), absolute */
    float index_head[64], mass_head[64]; /* per KV head; -1 = it always read the whole prefix: no recall */
    int32_t heads;
} mb_recall_cell;

typedef struct mb_recall {
    mb_recall_cell *cells; /* malloc'ed; free with mb_recall_free */
    size_t count;
    int64_t dense_calls, sparse_calls; /* layer-steps left out because they ran dense / counted */
    bool failed; /* this shadow's hook or index was bad: error says where; the others went on */
    mb_error error;
} mb_recall;
void mb_recall_free(mb_recall *recall);

/* One value of a method's map counter: sum / weight where the map is a mean, sum else. */
typedef struct mb_counter_place {
    double sum, weight;  /* weight > 0 */
    int32_t map;         /* row of the method's table */
    int32_t layer, step; /* -1: not an axis of this map; step 0: commits */
    int32_t unused;      /* 0: no byte of it is undefined */
} mb_counter_place;

/* What a method read at one layer of a denoising forward of sequence 0, in host memory, for the time of the call.
 */
typedef struct mb_selected {
    int32_t block, step, layer; /* step from 1 */
    int32_t prefix;             /* keys that were there */
    int32_t kv_heads;
    int32_t granularity, capacity; /* as in mb_page_set; granularity 0: the whole prefix, or nobody can say */
    const int32_t *ids;            /* [kv_heads][capacity] */
    const int32_t *counts;         /* [kv_heads]; -1: all of the prefix */
} mb_selected;

#define MB_FORWARD_HISTOGRAM 65

typedef struct mb_decode_result {
    int32_t *ids; /* new tokens only, cut after the first stop token; malloc'ed */
    size_t count;
    bool stopped; /* a stop token ended it */
    int32_t blocks, denoise_forwards, commit_forwards;
    int32_t forwards_histogram[MB_FORWARD_HISTOGRAM]; /* blocks by number of denoising forwards; last = more */
    double engaged;                                   /* sparse layer-calls / all denoising layer-calls, 0..1 */
    /* Denoising forwards only (commits are counted in commit_forwards and run dense unless the method says so): */
    double work;        /* prefix tokens attended / (prefix tokens x layer-calls), dense steps included */
    double work_select; /* the same for bytes read to select, in K+V token equivalents */
    double decode_us;   /* wall time of the blocks, commits included */
    /* Times of single forwards by kind, microseconds, in order; malloc'ed. */
    double *first_us, *later_us, *commit_us;
    size_t first_count, later_count, commit_count;
    uint64_t digest;         /* fixed work: of all tokens that its forwards predicted, in order */
    int32_t agree, compared; /* forced mode: tokens equal to the reference before overwriting */
    int32_t edits;           /* written tokens that another one replaced (LLaDA2.1) */
    double counters[32];     /* the method's own, in its order */
    mb_counter_place *maps;  /* its counters by layer and step, ordered by (map, layer, step); malloc'ed */
    size_t map_count;
} mb_decode_result;
void mb_decode_result_free(mb_decode_result *result);

typedef struct mb_decode_request {
    const mb_sampler *sampler;
    int32_t max_new_tokens; /* as the reference samplers round it: SDAR, LLaDA2 up to a block, Fast-dLLM v2 down */
    int32_t min_new_tokens; /* stop tokens among the first so many are ordinary tokens */
    int32_t extra_stop_id;  /* -1 = none (samsum's newline) */
    uint64_t seed;          /* of the tokens that are drawn (temperature > 0): the run's and the item's */
    int64_t request;        /* number handed to the method */
    bool time_forwards;     /* mark every forward (adds a wait per forward) */
    void (*trace)(void *user, const mb_trace_step *step);
    /* Told after every select() of a denoising forward; its forwards then run eagerly. NULL: nobody wants to know.
     */
    void (*selected)(void *user, const mb_selected *what);
    void *user; /* of both */
    /* Forced trajectory: reference tokens by absolute position after the prompt; overwritten before commit. */
    const int32_t *forced;
    size_t forced_count;
    const volatile int *stop; /* nonzero = return MB_E_STOP at the next forward */
    /* What chance decides of a canvas, in place of our own random numbers (sampler.h). NULL outside of tests. */
    const struct mb_canvas_draws *draws;
} mb_decode_request;

/* Decode sequence 0 from the snapshot with one attender; the cache is cut back to the snapshot afterwards. */
int mb_decode(mb_session *session, mb_attender *attender, const mb_decode_request *request,
              mb_decode_result *result, mb_error *err);

/* One decode of a group: what mb_decode() takes, and how it ended. */
typedef struct mb_group_arm {
    mb_attender *attender; /* of this session; no other arm of the group has it */
    const mb_decode_request *request;
    mb_decode_result *result;
    int rc; /* as mb_decode() returns it; a fault of one arm is that arm's alone */
    mb_error error;
} mb_group_arm;

/* As mb_decode() for each of the arms, bit by bit (a session opened with .invariant), but the rows of all blocks
 * that are denoised at a time go through one product for each weight matrix. count: up to the session's lanes. The
 * arms may use other samplers, and end at other times. Times of single arms mean nothing here. Fails only where no
 * arm could begin. */
int mb_decode_group(mb_session *session, mb_group_arm *arms, size_t count, mb_error *err);

/* Recall pass, shadow: decode once with `exact`; at every layer and step each of `shadows` selects on the same
 * queries and is compared with the exact top-k of the same size. recalls: one per shadow. Times mean nothing. */
int mb_decode_shadow(mb_session *session, mb_attender *exact, mb_attender *const *shadows, size_t shadow_count,
                     const mb_decode_request *request, mb_decode_result *result, mb_recall *recalls,
                     mb_error *err);

/* Latency: `blocks` blocks of `steps` steps on every sequence of the batch from its snapshot (or random fill),
 * no early stop, the cache cut back between blocks so that the context stays. Appends to the arrays of result. */
int mb_decode_fixed_work(mb_session *session, mb_attender *attender, int32_t blocks, int32_t steps,
                         const volatile int *stop, mb_decode_result *result, mb_error *err);

/* ---- measuring: how the forwards of a session's fixed work are run and who watches ---- */

/* One forward that has just ended. The time that a watcher takes does not count. */
typedef struct mb_forward_report {
    mb_phase phase; /* FIRST_STEP, LATER_STEP or COMMIT */
    int32_t block, step;
    double us;     /* between the events around it; NAN: audited or untimed */
    bool replayed; /* from a graph */
} mb_forward_report;

/* The kernels of one forward. records are the caller's for the time of the call. error: why there are none. */
typedef struct mb_profile_report {
    mb_phase phase;
    int32_t step;
    bool replayed;
    double us; /* between events, with the profiler attached */
    const mb_kernel_record *records;
    size_t count;
    const char *error; /* NULL, or the sentence */
} mb_profile_report;

/* Outputs checked against a recomputation over the index that the method shows, on random denoising forwards.
 * Before select() and attend() the buffers that they should fill hold NaN, so an old output does not pass. */
typedef struct mb_audit {
    double share;             /* of the denoising forwards, 0..1 */
    int64_t most;             /* forwards in all; 0 = any number */
    mb_random random;         /* seeded by the caller */
    int64_t k;                /* token budget per KV head of the method that runs, <= 0: none */
    int64_t forwards, layers; /* audited so far; layers: calls that were compared */
    int64_t opaque;           /* calls without an index, or with a state of other queries by design */
} mb_audit;

typedef struct mb_measure {
    bool counting; /* count the keys read: a kernel more per layer, so timed forwards leave it off */
    bool untimed;  /* no events: for an external profiler */
    void (*forward)(void *user, const mb_forward_report *report);
    void (*profile)(void *user, const mb_profile_report *report); /* needs kernels->profile_begin */
    int32_t profile_stride; /* of the later steps every so many-th is profiled; 0 = all */
    void *user;
    mb_audit *audit; /* NULL = no audit. A mismatch is MB_E_SAMPLE and says where */
} mb_measure;
/* Copies *measure; NULL = as after opening: counting, nobody watches. */
void mb_session_measure(mb_session *session, const mb_measure *measure);
/* Whether forwards replay graphs. Has no effect on a session that was opened without. */
void mb_session_use_graphs(mb_session *session, bool graphs);
/* The number that the inputs of fixed work derive from; each block adds one. The same number, the same inputs. */
void mb_session_rotate(mb_session *session, uint64_t rotation);
/* Whether the forwards of this attender replay graphs on its session as it is set. */
bool mb_attender_replays(const mb_attender *attender);

/* Block-causal logits of a whole token sequence, fp32 [n][vocab], malloc'ed. */
int mb_model_logits(mb_model *model, const int32_t *ids, size_t n, float **logits, mb_error *err);

#ifdef __cplusplus
}
#endif
#endif
