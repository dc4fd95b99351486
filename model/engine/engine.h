/*
 * engine.h - what the host side of decoding shares: sessions, attenders, one forward ("run"), the shadows.
 * Internal to model/.
 *
 * Memory: a session takes all of its device buffers when it opens (plan.c lists them), an attender takes what its
 * method asks for in open(); nothing is allocated on the device afterwards. Both give back by releasing the
 * arena mark of their beginning, so they close in reverse order of opening.
 *
 * The KV cache of a layer is [batch][kv_heads][capacity][head_dim]. Slots [0, N) are committed, slots [N, N+B)
 * belong to the block that is being denoised and are overwritten by each of its forwards; a commit forward leaves
 * clean keys and values there and N grows by B. Cutting back to the snapshot is setting N.
 */
#ifndef MB_MODEL_ENGINE_H
#define MB_MODEL_ENGINE_H

#include "model/internal.h"
#include "model/sampler/sampler.h"

/* ---- session ---- */

/* Device buffers of a session besides the KV cache. W = most rows of a forward, R = batch*block rows. A session
 * with lanes has one of each: the rows of all lanes lie behind each other up to MLP and in LOGITS; INPUT, BEST and
 * WORK hold a part for each lane; the others belong to one lane after the other. */
typedef enum mb_buffer {
    MB_BUFFER_X,        /* [W][hidden] residual stream */
    MB_BUFFER_NORMED,   /* [W][hidden] */
    MB_BUFFER_DELTA,    /* [W][hidden] output of o and down, not yet added */
    MB_BUFFER_QKV,      /* [W][(Hq+2*Hkv)*D] */
    MB_BUFFER_Q,        /* [W][Hq*D] after RoPE */
    MB_BUFFER_ATTENDED, /* [W][Hq*D] */
    MB_BUFFER_GATE_UP,  /* [W][2*I], I the widest dense part of a layer */
    MB_BUFFER_MLP,      /* [W][I] */
    MB_BUFFER_ROUTER,   /* [W][experts] fp32 logits, then [W][per_token] fp32 weights, then as many int32 ids */
    MB_BUFFER_EXPERTS,  /* scratch of the experts */
    MB_BUFFER_MIXED,    /* [W][hidden] output of the experts beside a dense part; an expected embedding */
    MB_BUFFER_SHARES,   /* scratch of a canvas' expected embeddings */
    MB_BUFFER_WINDOW,   /* [batch][local Hkv][window] int32 ids, then [batch][local Hkv] counts: what local layers
                           see */
    MB_BUFFER_Q_PRE,    /* [R][Hq*D] before RoPE */
    MB_BUFFER_STATE_PREFIX, /* [R][Hq*D] a method's own prefix attention */
    MB_BUFFER_STATE_BLOCK,  /* [R][Hq*D] the block's, to be merged with it */
    MB_BUFFER_LOGITS,       /* [R][vocab] */
    MB_BUFFER_LSE,          /* [R][Hq] fp32, of the dense pass */
    MB_BUFFER_LSE_PREFIX,   /* [R][Hq] fp32, over the prefix or a method's */
    MB_BUFFER_LSE_BLOCK,    /* [R][Hq] fp32 */
    MB_BUFFER_MASS,         /* [batch][Hkv][stride] fp32, for observe() */
    MB_BUFFER_MASS_EXACT,   /* the same over all rows: the measure of recall */
    MB_BUFFER_INPUT,        /* one upload a forward: struct mb_input */
    MB_BUFFER_BEST,         /* [R] int32 best tokens, then [R] fp32 their probabilities: one download */
    MB_BUFFER_WORK,         /* 4 doubles: keys attended and prefix keys; the same of opaque calls */
    MB_BUFFER_SCRATCH,      /* of top-k and votes */
    MB_BUFFER_COUNT
} mb_buffer;

/* Which part of the memory plan a buffer counts for. */
typedef enum mb_budget { MB_BUDGET_ACTIVATIONS, MB_BUDGET_LOGITS, MB_BUDGET_STATISTICS } mb_budget;

typedef struct mb_buffer_sizes {
    size_t bytes[MB_BUFFER_COUNT];
    mb_budget budget[MB_BUFFER_COUNT];
    size_t kv_bytes;       /* of k or of v of one layer */
    size_t local_kv_bytes; /* of one with a window */
    size_t tail_bytes;     /* of k or of v of one layer and lane: its own tokens; 0 where there is one lane */
    int32_t tail;          /* slots of that */
    int32_t chunk, rows, stride; /* prefill chunk, R, capacity rounded up to 64 */
    int32_t lanes;
} mb_buffer_sizes;

void mb_buffer_sizes_make(const mb_model_config *config, mb_type type, const mb_session_request *request,
                          mb_buffer_sizes *sizes);

struct mb_session {
    mb_model *model;
    const mb_model_config *config;
    const mb_kernels *kernels;
    mb_device *device;
    mb_type type;
    int32_t batch, block, capacity, stride, chunk;
    bool graphs, has_graphs; /* replay now; asked for at opening and the backend has them */
    size_t arena_mark;
    mb_kv *kv; /* [layers] */
    void *buffer[MB_BUFFER_COUNT];
    size_t scratch_bytes;
    int32_t *snapshot;    /* [batch] committed tokens after prefill */
    int32_t *prefix;      /* [batch] committed tokens now; the device copy goes up with each forward */
    int32_t **prompt;     /* [batch] the prompt's ids, malloc'ed; zeros after a random fill */
    size_t *prompt_count; /* [batch] */
    int32_t *seed;        /* [batch] best token behind the prefilled part; -1 = nothing is prefilled */
    int32_t *staging;     /* host copy of MB_BUFFER_INPUT */
    int32_t *answer;      /* host copy of MB_BUFFER_BEST */
    int32_t attenders;    /* open ones */
    bool causal;          /* the forward that is made is of a prompt or a commit of a canvas model */
    float temperature;    /* of the softmax over the last logits that goes into a canvas' next step */
    int32_t *window;      /* host copy of MB_BUFFER_WINDOW; NULL: no layer has a window */
    uint64_t rotation;    /* numbers the forwards of fixed work, so that inputs differ */
    mb_measure measure;
    mb_team *team; /* this and the next three as in the model */
    mb_comm *comm;
    int32_t rank, ranks;
    mb_session **peers; /* rank 0 of a split model: [ranks], from 1 on; NULL otherwise */
    mb_audit audit;     /* of a peer */
    int32_t owed;       /* sums over the ranks that the forward under way has still to make */
    bool invariant;     /* of the request */
    bool steady;        /* now: products have the same bits for every number of rows */
    /* Decodes that go together: lane 0 is the session itself; the others are sessions that have the model, the
     * device, the buffers and the cache of this one. The prompt's keys are there once. Behind them stand the
     * tokens of the lane whose turn it is; every lane has a copy of its own, its tail. */
    struct mb_session **lane; /* [lanes] */
    int32_t lanes, number;    /* of a lane: its place among them */
    mb_kv *tail;              /* [layers], NULL where there is one lane */
    int32_t holder;           /* whose tokens stand behind the prompt in every layer; -1: nobody's */
    struct mb_group *group;   /* while it takes part in one */
};

/* Offsets, in 4-byte words, of the arrays in MB_BUFFER_INPUT; each [batch][block] but the last two, [batch]
 * and one number. */
typedef struct mb_input {
    size_t ids, masked, masked_weight, centre_weight, prefix, temperature, words;
} mb_input;
mb_input mb_session_input(const mb_session *session);
static inline void *mb_input_at(const mb_session *session, size_t word)
{
    return (int32_t *)session->buffer[MB_BUFFER_INPUT] + word;
}

/* The host arrays of a session, for its batch; rows: of an answer. False: no memory, and what there is stays for
 * mb_session_arrays_free(), which leaves the prompts to the caller. */
bool mb_session_arrays_new(mb_session *session, int32_t rows);
void mb_session_arrays_free(mb_session *session);
/* A failed kernel operation as an error sentence. */
int mb_session_failed(const mb_session *session, int rc, const char *what, mb_error *err);
/* Sends the host's prefix lengths to the device: before hooks that come ahead of the next step's upload. */
int mb_session_send_prefix(mb_session *session, mb_error *err);
/* Tokens of the cache that prefix_len may bound for kernels: exact on a backend without graphs, else rounded up to
 * an eighth of the capacity, so that captured graphs serve many blocks and eager runs cut their work alike. */
int32_t mb_session_bound(const mb_session *session, int32_t prefix);
/* The KV cache of one layer seen as the cache of one sequence. */
mb_kv mb_session_kv_of(const mb_session *session, int32_t layer, int32_t sequence);
/* Block-causal forward of ids[from, to) of a sequence whose earlier keys are in the cache; `from` and, unless it
 * ends the text, `to` are multiples of B. logits NULL, or host memory for all rows, fp32 [to-from][vocab].
 * best NULL, or receives the best token of the last row. */
int mb_session_prefill_rows(mb_session *session, int32_t sequence, const int32_t *ids, int32_t from, int32_t to,
                            float *logits, int32_t *best, mb_error *err);

/* ---- one forward of a block ---- */

struct mb_shadow;

typedef struct mb_forward_run {
    struct mb_attender *attender; /* decides the attention */
    struct mb_shadow *shadows;    /* shadow pass: those who are asked as well; NULL otherwise */
    size_t shadow_count;
    struct mb_ranking *ranking; /* shadow pass: exact keys by mass */
    int64_t request;
    mb_phase phase;      /* FIRST_STEP, LATER_STEP or COMMIT */
    int32_t block, step; /* running numbers; step 0 for a commit */
    int32_t batch, rows, row_offset, masked_rows;
    int32_t max_prefix, mode;
    const uint8_t *open; /* [batch][block] 1 = a slot counts as masked; NULL: where its token is the mask */
    bool pre_rope;       /* somebody reads the queries before RoPE */
    bool kept;           /* later forwards read the block's keys of this one */
    bool checked;        /* selections and states are looked at before they are used; not while capturing */
    mb_type confidence;
    const mb_decode_request *watcher; /* its selected() is told what is read; NULL: nobody is */
    bool audited;                     /* buffers are poisoned and outputs checked: eager, never timed */
    bool replayed;                    /* result: from a graph */
    struct mb_captured *part; /* of a lane: the graphs of its layers, made where they are missing; or NULL */
    /* Results: what the leader's hooks answered. */
    int32_t sparse_layers, layers;
    double select_share; /* sum over layers of select_tokens / max_prefix */
    double local_tokens; /* keys that layers with a window read, which every method reads */
} mb_forward_run;

/* One attender's part of something that all of a forward do. shadow: NULL for the leader. */
typedef int (*mb_attender_turn)(struct mb_attender *attender, struct mb_shadow *shadow, void *user, mb_error *err);
/* The leader's turn, whose failure ends the forward, then that of every shadow still in it; a shadow that fails
 * keeps its error and drops out. */
int mb_forward_each(const mb_forward_run *run, mb_attender_turn turn, void *user, mb_error *err);

/* Enqueues the transformer on MB_BUFFER_INPUT, up to the best token of every row in MB_BUFFER_BEST. */
int mb_forward(mb_session *session, mb_forward_run *run, mb_error *err);

typedef struct mb_lane_run { /* one lane's part of a forward of several */
    mb_session *session;     /* the owner of the lanes, or one of them */
    mb_forward_run *run;
    int64_t row; /* where its rows begin */
    int rc;      /* of what it does alone; with a sentence in *error */
    mb_error *error;
} mb_lane_run;
/* mb_forward() of several lanes of `session`, in rising order: their rows are one product's, their attention is
 * each one's own. A lane that fails drops out. Negative: what all of them need failed. */
int mb_forward_lanes(mb_session *session, mb_lane_run *lanes, size_t count, mb_error *err);
/* The layers' common parts, also used by prefill: rows n, from MB_BUFFER_X/DELTA. attend may be called between. */
int mb_forward_qkv(mb_session *session, int32_t layer, int64_t n, mb_error *err);
/* MB_BUFFER_QKV becomes MB_BUFFER_Q and the keys and values of the rows' slots. */
int mb_forward_rope(mb_session *session, int32_t layer, const mb_rows *rows, const mb_kv *kv, void *q_pre,
                    mb_error *err);
int mb_forward_mlp(mb_session *session, int32_t layer, int64_t n, mb_error *err);
/* The same of Gemma's layers, and their kind of input: `causal` says which number ends a layer (wrapped.c). */
int mb_wrapped_mlp(mb_session *session, int32_t layer, int64_t n, mb_error *err);
/* x = RMSNorm of buffer `x`, with what args says of delta, weight, scale and factor; width and eps are filled in.
 */
int mb_forward_rms(mb_session *session, mb_rmsnorm args, int64_t n);
/* Gate, up, activation, down of n rows in MB_BUFFER_NORMED, into MB_BUFFER_DELTA. */
int mb_forward_dense(mb_session *session, const struct mb_layer *weights, int64_t n, int64_t inner);
/* Routes n rows of MB_BUFFER_NORMED, and adds up their experts of the rows that are there then (add: NULL or rows
 * on top) into `out`. */
int mb_forward_route(mb_session *session, const struct mb_layer *weights, int64_t n);
int mb_forward_experts(mb_session *session, const struct mb_layer *weights, int64_t n, const void *add, void *out);
/* Embeds a canvas: the last logits go into it from the second step on (canvas.c). */
int mb_canvas_condition(mb_session *session, const mb_forward_run *run, int64_t n, mb_error *err);
/* Sends which keys of the prefix a canvas sees in layers with a window. */
int mb_canvas_send_window(mb_session *session, int32_t batch, mb_error *err);
/* Attention of a layer that is no method's business: of a window, or of a commit, which is causal here. */
int mb_canvas_attention(mb_session *session, mb_forward_run *run, int32_t layer, mb_error *err);
/* Embeds ids into the residual stream, from row `row` on. */
int mb_forward_embed(mb_session *session, int64_t row, const int32_t *ids, int64_t n, mb_error *err);
/* Final norm of n rows into MB_BUFFER_NORMED, and the logits of n of them starting at `first`. */
int mb_forward_norm(mb_session *session, int64_t n, mb_error *err);
int mb_forward_head(mb_session *session, int64_t first, int64_t n, mb_error *err);

/* Attention of one layer, as the attender decides: MB_BUFFER_Q -> MB_BUFFER_ATTENDED. */
int mb_layer_attention(mb_session *session, mb_forward_run *run, int32_t layer, mb_error *err);

/* A whole step: uploads `tokens` ([batch][block]; rows row_offset .. of each), forwards (replaying a graph where
 * possible), downloads. ids and probability [batch][rows]. us: NULL, or the time between events around it. */
int mb_step(mb_session *session, mb_forward_run *run, const int32_t *tokens, int32_t *ids, float *probability,
            double *us, mb_error *err);

/* ---- decodes that go together (group.c) ---- */

/* The lanes' caches and places in the buffers; the session itself is open. */
int mb_lanes_open(mb_session *session, const mb_buffer_sizes *sizes, mb_error *err);
void mb_lanes_close(mb_session *session);
/* Before and after a lane's part of a layer: its tokens go behind the prompt, where another lane's may stand, and
 * what later forwards read of the block goes into its tail. Nothing to do for a session that decodes alone. */
int mb_lane_bring(mb_session *owner, const mb_lane_run *lane, int32_t layer, mb_error *err);
int mb_lane_keep(mb_session *owner, const mb_lane_run *lane, int32_t layer, mb_error *err);
/* mb_forward() of a lane that takes part in a group: hands the run in and returns when the group has computed it.
 */
int mb_group_forward(mb_session *session, mb_forward_run *run, mb_error *err);

/* ---- what forwards read (work.c) ---- */

typedef struct mb_work { /* of a decode's denoising forwards so far, beside what the device counts */
    double layers, sparse_layers;
    double select_tokens; /* that choosing read, over KV heads */
    double local_tokens;  /* that layers with a window read */
} mb_work;

/* Clears the device's counters; the host's prefix lengths go to the device. */
int mb_work_begin(mb_session *session, mb_error *err);
/* A denoising forward that was run. */
void mb_work_add(mb_work *work, const mb_session *session, const mb_forward_run *run);
/* Fills work, work_select and engaged of the result, over all ranks. */
int mb_work_read(const mb_work *work, mb_session *session, mb_decode_result *result, mb_error *err);

/* ---- audit (audit.c) ---- */

/* Draws whether a forward is audited. */
bool mb_audit_draw(mb_session *session, const mb_forward_run *run);
/* Fills the buffers that select() and attend() lead to with NaN. */
int mb_audit_poison(mb_session *session, mb_error *err);
/* A sparse answer: a valid index within the budget, and MB_BUFFER_ATTENDED equal to a second attention over it. */
int mb_audit_sparse(mb_session *session, const mb_forward_run *run, const mb_call *call, const mb_attention *args,
                    const mb_page_set *set, mb_error *err);
/* A state of the method's own, in MB_BUFFER_STATE_PREFIX: equal to attention over the pages it shows. */
int mb_audit_state(mb_session *session, const mb_forward_run *run, const mb_call *call, const mb_page_set *set,
                   mb_error *err);

/* ---- attender ---- */

typedef struct mb_captured { /* a kind of forward that has come up; graph NULL until the second time */
    int32_t mode, batch, rows, row_offset, max_prefix;
    int32_t lane; /* of a forward with others: the lane; -1: the whole forward is one graph */
    mb_phase phase;
    mb_type confidence;
    bool counting;
    mb_graph *graph;
    mb_graph **layer; /* [layers] of a lane: what is its own in a layer; malloc'ed the second time */
    int32_t sparse_layers, layers;
    double select_share, local_tokens;
} mb_captured;

/* What a captured forward's hooks answered goes into its graph, and to a replay. */
void mb_captured_keep(mb_captured *graph, const mb_forward_run *run);
void mb_captured_tell(const mb_captured *graph, mb_forward_run *run);
/* Its graphs; the kind of forward stays known. */
void mb_captured_free(mb_session *session, mb_captured *graph);

struct mb_attender {
    mb_session *session; /* NULL while the memory of open() is only measured */
    mb_method method;    /* a copy, missing trailing fields NULL */
    mb_shape shape;
    void *self;
    void *memory;      /* what the host allocated for self; NULL: the method did */
    bool dense_commit; /* the commit forward attends exactly without asking */
    mb_host host;
    bool opening;             /* host.alloc works */
    bool exhausted;           /* an allocation in open() failed */
    int32_t late_allocations; /* host.alloc calls outside open(), which were refused */
    bool opened;
    bool capturable;
    size_t arena_mark, counted;
    int64_t request;
    struct mb_process *process; /* as it was before the method came; put back at the end of every block */
    mb_captured *graphs;        /* malloc'ed list */
    size_t graph_count, graph_capacity;
    mb_attender_note *note; /* borrowed; NULL = nobody looks */
    int64_t budget;         /* tokens per KV head that checked selections keep to; 0 = unchecked */
    void **guards;          /* device memory behind each array of an index */
    size_t guard_count;
    int32_t *words; /* host copies while something is checked */
    size_t word_count;
    struct mb_attender **peers; /* rank 0 of a split model: [ranks], from 1 on; NULL otherwise */
    mb_attender_note own_note;  /* of a peer that is watched */
};

/* What call->internal points to: enough to turn a mb_call back into kernel arguments. */
typedef struct mb_call_view {
    mb_session *session;
    mb_rows rows;
    mb_kv kv;
    int32_t layer; /* of the model; the call's number counts the layers that methods see */
} mb_call_view;

/* Fills call and view for a layer (-1: none) of a forward; q, keys and flags are those of the session's buffers.
 */
void mb_call_make(const mb_session *session, const mb_forward_run *run, int32_t layer, mb_call *call,
                  mb_call_view *view);
/* The hooks. Absent ones are no error; a failing one gives MB_E_SAMPLE and names method, hook, layer and step. */
typedef enum mb_hook {
    MB_HOOK_REQUEST_BEGIN,
    MB_HOOK_KV_ADDED,
    MB_HOOK_BLOCK_BEGIN,
    MB_HOOK_STEP_BEGIN,
    MB_HOOK_OBSERVE,
    MB_HOOK_STEP_END,
    MB_HOOK_BLOCK_END
} mb_hook;
int mb_attender_hook(mb_attender *attender, mb_hook hook, const mb_call *call, mb_error *err);
/* One hook of a forward, on its leader and its shadows. layer -1: the hook belongs to no layer. */
int mb_forward_hook(mb_session *session, const mb_forward_run *run, mb_hook hook, int32_t layer, mb_error *err);
int mb_attender_select(mb_attender *attender, const mb_call *call, mb_selection *selection, mb_error *err);
int mb_attender_attend(mb_attender *attender, const mb_call *call, void *out, float *lse, mb_error *err);
/* step_mode(), 0 without it; MB_E_SAMPLE when it is not in 0..7. */
int mb_attender_mode(mb_attender *attender, const mb_call *call, int32_t *mode, mb_error *err);
/* Answers a dense selection's wants from the exact pass: fills call->lse and call->mass, calls observe(). lse: of
 * the exact pass over prefix and block. mass: NULL, or the mass as asked for, computed already. */
int mb_attender_observe(mb_attender *attender, mb_call *call, const mb_selection *selection, float *lse,
                        float *mass, mb_error *err);
/* request_begin and kv_added for all layers: the method meets the snapshot. */
int mb_attender_begin(mb_attender *attender, const mb_forward_run *run, mb_error *err);
/* The method's counters, in its order. */
int mb_attender_report(mb_attender *attender, double *values, size_t count, mb_error *err);
/* Its counters by layer and step: *values malloc'ed, ordered by (map, layer, step), NULL and 0 without any.
 * MB_E_SAMPLE: the hook failed, or a value is out of place, not finite or there twice. */
int mb_attender_report_maps(mb_attender *attender, mb_counter_place **values, size_t *count, mb_error *err);

/* mb_host functions (attender_ops.c). */
void mb_host_fill(mb_attender *attender, uint64_t seed);
/* Kernel arguments of a call: the base that every operation starts from. */
mb_attention mb_call_attention(const mb_call *call);
/* Weights of a row set for the call's rows; NULL = every row counts 1. */
const float *mb_call_row_weight(const mb_call *call, mb_row_set rows);

/* ---- checks of what a method hands over (check.c); breaches are MB_E_SAMPLE with method, layer and step ---- */

#define MB_GUARD_BYTES 256
/* Fills MB_GUARD_BYTES at `at` with the pattern and watches over them. */
int mb_guard_add(mb_attender *attender, void *at);
int mb_check_guards(mb_attender *attender, const mb_call *call, mb_error *err);
/* The index of a call (NULL: dense) as the watcher of the run gets it. */
int mb_tell_selected(mb_attender *attender, const mb_forward_run *run, const mb_call *call, const mb_page_set *set,
                     mb_error *err);
/* A page set that can be read at all: pointers, capacity, granularity. */
bool mb_check_shape(const mb_page_set *set);
/* Counts within the capacity, ids ascending, distinct and in the prefix, budget kept; the guards too. */
int mb_check_pages(mb_attender *attender, const mb_call *call, const mb_page_set *set, mb_error *err);
/* The method's own state in MB_BUFFER_STATE_PREFIX and MB_BUFFER_LSE_PREFIX is finite. */
int mb_check_state(mb_attender *attender, const mb_call *call, mb_error *err);

/* A hash a layer of the first `tokens` keys and values of sequence 0: *hashes malloc'ed. Methods get them as
 * const. */
int mb_cache_hash(const mb_session *session, int32_t tokens, char (**hashes)[MB_HASH_CAP], mb_error *err);

/* ---- shadow recall ---- */

typedef struct mb_recall_sum { /* of one (layer, step) */
    int32_t blocks;
    double index, mass, captured;
    double index_head[64], mass_head[64];
    int32_t head_blocks[64];
} mb_recall_sum;

/* What a shadow's selection at one layer of a step holds, by KV head. */
typedef struct mb_held {
    int32_t heads;
    bool sparse[64]; /* the head does not read the whole prefix: the others have no recall */
    double index[64], mass[64], captured[64];
} mb_held;

/* What came of asking a shadow at one layer, as ranks tell each other. */
typedef struct mb_asked {
    bool failed;
    bool counted; /* a denoising forward's */
    mb_held held; /* heads 0: it answered dense */
    mb_error error;
} mb_asked;

typedef struct mb_shadow {
    mb_attender *attender;
    mb_asked asked; /* at the layer under way */
    int32_t mode;
    mb_recall_sum *sums; /* [steps][layers], grown with the steps */
    int32_t steps;
    int64_t dense_calls, sparse_calls;
    bool failed;
    mb_error error;
    int32_t *ids, *counts; /* host copies of one selection */
    size_t ids_capacity;
} mb_shadow;

/* Exact keys of a layer and step by descending mass, per KV head. */
typedef struct mb_ranking {
    int32_t heads, prefix, stride;
    int32_t *rank;     /* [heads][prefix] 0 = heaviest */
    int32_t *order;    /* scratch, [2][stride] */
    double *cumulated; /* [heads][prefix+1] mass of the best n */
    float *mass;       /* [heads][stride] */
} mb_ranking;

/* Asks every shadow after the leader's exact attention of this layer; lse is the exact one. */
int mb_shadows_ask(mb_session *session, mb_forward_run *run, mb_ranking *ranking, int32_t layer, float *lse,
                   mb_error *err);
int mb_ranking_make(mb_ranking *ranking, mb_session *session, int32_t prefix, mb_error *err);
void mb_ranking_free(mb_ranking *ranking);
/* Compares one selection, host copies, with the ranking. 0 = compared, 1 = it holds the whole prefix (dense),
 * MB_E_SAMPLE = not a valid index. Adds to sum when 0. */
int mb_recall_compare(const mb_ranking *ranking, int32_t granularity, int32_t capacity, const int32_t *ids,
                      const int32_t *counts, mb_recall_sum *sum, mb_error *err);
/* Failures that came after the last layer was asked: a shadow that failed on one rank has failed on all. */
int mb_shadows_settle(mb_session *session, const mb_forward_run *run, int32_t layer, int rc, mb_error *err);
int mb_shadow_result(const mb_shadow *shadow, int32_t layers, int32_t heads, mb_recall *recall, mb_error *err);
void mb_shadow_free(mb_shadow *shadow);

#endif
