/*
 * keys.c - every key of a config file, a row each (keys.h says what the columns are), and the table as text:
 * `./harness help config` and the table in configs/README.md.
 */
#include "driver/config/keys.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define MAX_TOKENS 2097152.0
#define MAX_SAMPLES 1e9
#define MAX_SEED 9007199254740992.0 /* beyond, a double no longer tells whole numbers apart */

#define FIELD(type, field) .offset = offsetof(type, field), .size = sizeof((type *)0)->field
#define AT(field) FIELD(mb_run_config, field)
#define IN_SAMPLER(field) FIELD(mb_sampler, field)
#define IN_TASK(field) FIELD(mb_task_spec, field)

#define MORE_OF_THE_SAME "more or fewer rows of the same kind: none of them changes"

static const mb_key_choice passes[] = {{"quality", MB_RUN_QUALITY},     {"recall", MB_RUN_RECALL},
                                       {"forced", MB_RUN_FORCED},       {"latency", MB_RUN_LATENCY},
                                       {"breakdown", MB_RUN_BREAKDOWN}, {NULL, 0}};
static const mb_key_choice weights[] = {{"checkpoint", MB_WEIGHTS_READ}, {"random", MB_WEIGHTS_DRAWN}, {NULL, 0}};
static const mb_key_choice storage[] = {{"bf16", MB_BF16}, {"f32", MB_F32}, {"f16", MB_F16}, {NULL, 0}};
static const mb_key_choice precisions[] = {{"f32", MB_F32}, {"bf16", MB_BF16}, {"f16", MB_F16}, {NULL, 0}};
static const mb_key_choice schedules[] = {
    {"threshold", MB_SCHEDULE_THRESHOLD}, {"fixed", MB_SCHEDULE_FIXED}, {NULL, 0}};
static const mb_key_choice remaskings[] = {{"low_confidence_dynamic", MB_REMASK_DYNAMIC},
                                           {"low_confidence_static", MB_REMASK_STATIC},
                                           {"sequential", MB_REMASK_SEQUENTIAL},
                                           {"entropy_bounded", MB_REMASK_ENTROPY},
                                           {NULL, 0}};
static const mb_key_choice modes[] = {{"quality", MB_SAMPLER_QUALITY}, {"speed", MB_SAMPLER_SPEED}, {NULL, 0}};
static const mb_key_choice confidences[] = {{"all", MB_CONFIDENCE_ALL}, {"kept", MB_CONFIDENCE_KEPT}, {NULL, 0}};
static const mb_key_choice templates[] = {{"folder", MB_CHAT_FOLDER}, {"family", MB_CHAT_FAMILY}, {NULL, 0}};
static const mb_key_choice thinking[] = {{"true", MB_THINKING_ON}, {"false", MB_THINKING_OFF}, {NULL, 0}};
static const mb_key_choice special_texts[] = {{"token", MB_SPECIAL_TOKEN}, {"text", MB_SPECIAL_TEXT}, {NULL, 0}};
static const mb_key_choice groups[] = {{"auto", MB_GROUP_AUTO}, {NULL, 0}};
static const mb_key_choice batches[] = {{"largest", MB_BATCH_LARGEST}, {NULL, 0}};

/* The file's order is the help's, and that of the read functions. */
const mb_key mb_config_keys[] = {
    {"", "$schema", MB_KEY_TEXT, AT(schema), .preset_words = "none", .extends = true,
     .harmless = "the program does not read it", .help = "for editors: the file that ./harness schema wrote"},
    {"", "extends", MB_KEY_TEXT, AT(base), .preset_words = "none", .extends = true,
     .harmless = "the merged config is the run's",
     .help =
         "a config that this one is based on, by its path from here; objects are merged, null takes a key away"},
    {"", "name", MB_KEY_TEXT, AT(name), .preset_words = "the file's name",
     .help = "name of the run; results/NAME.db and results/NAME/ by default"},
    {"", "seed", MB_KEY_INT, AT(seed), .max = MAX_SEED, .preset = "1", .flag = "--seed N,...", .lists = true,
     .commands = "generate", .help = "seed of everything drawn: samples, methods, synthetic weights' cache"},
    {"", "device", MB_KEY_TEXT, AT(device), .preset = "auto", .flag = "--device NAME",
     .help =
         "auto, cpu, cuda or cuda:N; auto takes a working GPU and says which; cuda:N,M,... for model.parallel"},
    {"", "threads", MB_KEY_INT, AT(threads), .max = 1024, .preset = "0", .flag = "--threads N",
     .commands = "logits generate", .extends = true, .stored = "env.threads",
     .help = "CPU worker threads; 0 = all cores this process may use"},
    {"", "memory_gib", MB_KEY_REAL, AT(memory_gib), .max = 1e6, .preset = "0",
     .help = "device memory the run may plan with; 0 = what is free"},
    {"", "plugin_seconds", MB_KEY_REAL, AT(plugin_seconds), .min = 0.1, .max = 1e6, .preset = "600",
     .extends = true, .harmless = "a plug-in that was ended is a failed row, which the next start tries again",
     .help = "seconds without a sign of life from a plug-in before its process is ended, and until a stopped "
             "(SIGSTOP) one, or a stopped worker of --devices, is told to go on"},
    {"", "model", MB_KEY_SECTION, .preset = "models/tiny", .flag = "--model DIR", .shorthand = "path",
     .lists = true, .help = "checkpoint folder, or an object with the keys of section model"},
    {"", "chat", MB_KEY_SECTION, .preset = "{}",
     .help = "how a prompt is put to the model: object with the keys of section chat"},
    {"", "special_tokens_in_data", MB_KEY_CHOICE, AT(special_tokens_in_data), .choices = special_texts,
     .preset = "token",
     .help = "what a row becomes that spells a special token of the tokenizer: that token, as Hugging Face and "
             "LongBench have it, or text"},
    {"", "data", MB_KEY_PATH, AT(data), .preset = "datasets/data", .flag = "--data DIR", .extends = true,
     .stored = "dataset.file_hash", .help = "folder of the benchmark files"},
    {"", "methods", MB_KEY_OWN, AT(methods), .preset_words = "required", .flag = "--methods A,B", .extends = true,
     .read = mb_config_read_methods, .choose = mb_config_choose_methods, .stored = "config.options_json",
     .describe = mb_config_describe_methods,
     .help = "object NAME: {options}; a list of values is a sweep; see `help METHOD`; the flag keeps the file's "
             "options"},
    {"", "tasks", MB_KEY_OWN, AT(tasks), .preset_words = "[]", .flag = "--tasks A,B", .shorthand = "task",
     .extends = true, .read = mb_config_read_tasks, .choose = mb_config_choose_tasks,
     .stored = "dataset.options_json", .describe = mb_config_describe_tasks,
     .help =
         "list of task or group names, or objects with the keys of section task; see `list tasks`, `help TASK`"},
    {"", "sampler", MB_KEY_SECTIONS, AT(samplers), .preset = "{}", .extends = true,
     .help = "object with the keys of section sampler, or a list of such objects"},
    {"", "passes", MB_KEY_CHOICES, AT(passes), .choices = passes, .preset = "[\"quality\"]", .extends = true,
     .stored = "cell.pass", .help = "what is done with every sample, and what is timed"},
    {"", "limit", MB_KEY_INT, AT(limit), .max = MAX_SAMPLES, .preset = "0", .flag = "--limit N", .extends = true,
     .harmless = MORE_OF_THE_SAME, .help = "samples per task; 0 = all"},
    {"", "max_length", MB_KEY_INT, AT(max_length), .max = MAX_TOKENS, .preset = "0",
     .help = "prompt tokens beyond which the middle is cut; 0 = what the model takes"},
    {"", "max_new_tokens", MB_KEY_INT, AT(max_new_tokens), .max = 65536, .preset = "0",
     .help = "overrides the benchmark's own limit; 0 = keep it"},
    {"", "decode", MB_KEY_SECTION, .preset = "{}", .help = "object with the keys of section decode"},
    {"", "recall", MB_KEY_SECTION, .preset = "{}", .extends = true,
     .help = "object with the keys of section recall"},
    {"", "record", MB_KEY_SECTION, .preset = "{}", .extends = true,
     .help = "what is kept to look at (show, report --format html): object with the keys of section record"},
    {"", "latency", MB_KEY_SECTION, .preset = "{}", .extends = true,
     .help = "object with the keys of section latency"},
    {"", "results", MB_KEY_TEXT, AT(results), .preset_words = "results/NAME.db", .flag = "--db FILE",
     .extends = true, .harmless = "it says where rows go", .help = "SQLite file"},
    {"", "plots", MB_KEY_TEXT, AT(plots), .preset_words = "results/NAME", .flag = "--out DIR", .extends = true,
     .harmless = "figures are drawn from rows", .help = "folder of the figures; \"\" = draw none"},

    {"model", "path", MB_KEY_PATH, AT(model_path), .preset_words = "none",
     .help = "checkpoint folder as downloaded, or a GGUF file"},
    {"model", "shape", MB_KEY_TEXT, AT(model_shape), .preset_words = "none", .rival = "path",
     .help = "named dimensions for a synthetic model: fast_dllm_v2_7b, sdar_8b, llada2_mini, ..."},
    {"model", "weights", MB_KEY_CHOICE, AT(weights), .choices = weights, .preset = "checkpoint", .rival = "path",
     .help = "random needs shape; such rows are labelled synthetic"},
    {"model", "seed", MB_KEY_INT, AT(model_seed), .max = MAX_SEED, .preset = "1",
     .help = "seed of random weights"},
    {"model", "type", MB_KEY_CHOICE, AT(type), .choices = storage, .preset = "bf16",
     .help = "storage type of activations and KV cache"},
    {"model", "block", MB_KEY_INT, AT(block_size), .max = 256, .preset = "0", .flag = "--block N",
     .commands = "generate logits tokenize",
     .help = "block length B; 0 = the checkpoint's: its config.json, then the N of \"-bN\" in the name of an SDAR "
             "folder, then its family's"},
    {"model", "sub_block", MB_KEY_INT, AT(sub_block), .max = 256, .preset = "0", .flag = "--sub-block N",
     .commands = "generate",
     .help = "Fast-dLLM v2: slots that are decoded together, small_block_size of its code; 0 = 8"},
    {"model", "mask", MB_KEY_INT, AT(mask), .max = 4194303, .preset = "0", .flag = "--mask ID",
     .commands = "generate logits tokenize",
     .help = "id of the mask token; 0 = the checkpoint's: its config.json, then the tokenizer's mask token"},
    {"model", "stop", MB_KEY_INTS, AT(stop), .max = 4194303, .preset_words = "the checkpoint's",
     .flag = "--stop IDS", .commands = "generate",
     .help = "ids of the tokens that end a text: [1, 2], 1,2 or one; default: those its family's code stops at"},
    {"model", "positions", MB_KEY_INT, AT(positions), .max = MAX_TOKENS, .preset = "0",
     .help = "overrides max_position_embeddings; 0 = the checkpoint's"},
    {"model", "prefill_chunk", MB_KEY_INT, AT(prefill_chunk), .max = 65536, .preset = "0",
     .help = "prompt rows per prefill forward; 0 = default"},
    {"model", "parallel", MB_KEY_INT, AT(parallel), .min = 1, .max = MB_RANKS_MAX, .preset = "1",
     .help =
         "devices that the model is split over (docs/scaling.md); on GPUs those from \"device\" on, or of a list "
         "cuda:0,2"},
    {"model", "graphs", MB_KEY_BOOL, AT(graphs), .preset = "true",
     .help = "replay denoising steps as CUDA graphs where the method allows"},

    {"chat", "template", MB_KEY_CHOICE, AT(chat.source), .choices = templates,
     .preset_words = "folder where it has one, else family", .flag = "--chat-template WORD",
     .commands = "tokenize generate",
     .help = "chat template: the checkpoint folder's own, or the format built in for its family"},
    {"chat", "thinking", MB_KEY_CHOICE, AT(chat.thinking), .choices = thinking, .preset_words = "not said",
     .flag = "--thinking BOOL", .commands = "tokenize generate",
     .help = "the template's switch for thinking (enable_thinking); an error where it has none"},
    {"chat", "system", MB_KEY_TEXT, AT(chat.system), .preset_words = "none", .flag = "--system TEXT",
     .commands = "tokenize generate", .help = "text of a system message in front of the prompt"},

    {"task", "task", MB_KEY_TEXT, IN_TASK(task), .preset_words = "required", .stored = "dataset.task",
     .help = "name of a task or a group"},
    {"task", "limit", MB_KEY_INT, IN_TASK(limit), .max = MAX_SAMPLES, .preset_words = "the run's",
     .harmless = MORE_OF_THE_SAME, .help = "samples; 0 = all"},
    {"task", "data", MB_KEY_PATH, IN_TASK(folder), .preset_words = "the run's", .stored = "dataset.file_hash",
     .help = "folder of the benchmark files"},

    {"sampler", "schedule", MB_KEY_CHOICE, IN_SAMPLER(schedule), .choices = schedules, .preset_words = "threshold",
     .stored = "sampler.schedule", .flag = "--schedule WORD", .commands = "generate",
     .help = "fixed: T steps per block; threshold: the family's own rule"},
    {"sampler", "steps", MB_KEY_INT, IN_SAMPLER(steps), .min = 1, .max = 256, .preset_words = "B",
     .stored = "sampler.steps", .help = "denoising steps T per block (fixed), or the static rule's"},
    {"sampler", "mode", MB_KEY_CHOICE, IN_SAMPLER(mode), .choices = modes, .preset_words = "none",
     .stored = MB_KEY_SAMPLER_OPTIONS, .flag = "--mode WORD", .commands = "generate",
     .help = "LLaDA2.1's card: quality is threshold 0.7 with editing_threshold 0.5, speed 0.5 with 0"},
    {"sampler", "threshold", MB_KEY_REAL, IN_SAMPLER(threshold), .max = 1, .preset_words = "the family's",
     .stored = "sampler.threshold", .flag = "--threshold P", .commands = "generate",
     .help = "confidence above which tokens are unmasked (strictly)"},
    {"sampler", "remasking_strategy", MB_KEY_CHOICE, IN_SAMPLER(remasking), .choices = remaskings,
     .preset_words = "low_confidence_dynamic", .stored = MB_KEY_SAMPLER_OPTIONS,
     .flag = "--remasking-strategy WORD", .commands = "generate",
     .help = "SDAR, LLaDA2: all above the threshold; the step's share of highest confidence; the share from left "
             "to right; those of lowest entropy"},
    {"sampler", "eb_threshold", MB_KEY_REAL, IN_SAMPLER(eb_threshold), .max = 1e4, .preset_words = "0.35",
     .stored = MB_KEY_SAMPLER_OPTIONS, .flag = "--eb-threshold NATS", .commands = "generate",
     .help = "entropy_bounded: sum of entropies (nats) that a step's tokens stay below; one is always unmasked"},
    {"sampler", "temperature", MB_KEY_REAL, IN_SAMPLER(temperature), .max = 100, .preset_words = "0",
     .stored = MB_KEY_SAMPLER_OPTIONS, .flag = "--temperature T", .commands = "generate",
     .help = "tokens are drawn from softmax(logits / temperature), by the run's seed; 0 = the best token"},
    {"sampler", "top_p", MB_KEY_REAL, IN_SAMPLER(top_p), .min = 1e-6, .max = 1, .preset_words = "the family's",
     .stored = MB_KEY_SAMPLER_OPTIONS, .flag = "--top-p P", .commands = "generate",
     .help = "drawn from the likeliest tokens until their sum passes this; 1 = all; Fast-dLLM v2 has 0.95"},
    {"sampler", "top_k", MB_KEY_INT, IN_SAMPLER(top_k), .max = 4194303, .preset_words = "0",
     .stored = MB_KEY_SAMPLER_OPTIONS, .flag = "--top-k K", .commands = "generate",
     .help = "drawn from the k likeliest tokens; 0 = all"},
    {"sampler", "block_cache", MB_KEY_BOOL, IN_SAMPLER(block_cache), .preset_words = "false",
     .stored = "sampler.block_cache", .flag = "--block-cache BOOL", .commands = "generate",
     .help = "Fast-dLLM v2: sub-block calls on the block cache"},
    {"sampler", "confidence", MB_KEY_CHOICE, IN_SAMPLER(confidence), .choices = precisions,
     .preset_words = "the family's", .stored = "sampler.confidence", .flag = "--confidence TYPE",
     .commands = "generate", .help = "type in which probabilities are compared"},
    {"sampler", "confidence_over", MB_KEY_CHOICE, IN_SAMPLER(confidence_over), .choices = confidences,
     .preset_words = "the family's", .stored = MB_KEY_SAMPLER_OPTIONS, .flag = "--confidence-over WORD",
     .commands = "generate",
     .help = "a drawn token's confidence: its share of all tokens (SDAR's evaluation), or of those that top_k and "
             "top_p keep"},
    {"sampler", "eos_early_stop", MB_KEY_BOOL, IN_SAMPLER(eos_early_stop), .preset_words = "false",
     .stored = MB_KEY_SAMPLER_OPTIONS, .flag = "--eos-early-stop BOOL", .commands = "generate",
     .help = "LLaDA2.0: end at the step that writes a stop token behind written tokens, not with the block"},
    {"sampler", "editing_threshold", MB_KEY_REAL, IN_SAMPLER(editing_threshold), .max = 2,
     .preset_words = "LLaDA2.1: 0.9, else 2", .stored = MB_KEY_SAMPLER_OPTIONS, .flag = "--editing-threshold P",
     .commands = "generate",
     .help = "LLaDA2: a written token gives way to another of more confidence than this; above 1 = never"},
    {"sampler", "max_post_steps", MB_KEY_INT, IN_SAMPLER(max_post_steps), .max = 256, .preset_words = "16",
     .stored = MB_KEY_SAMPLER_OPTIONS, .flag = "--max-post-steps N", .commands = "generate",
     .help = "LLaDA2.1: most forwards of a block without masks that look for edits"},
    {"sampler", "compat_prompt_bug", MB_KEY_BOOL, IN_SAMPLER(compat_prompt_bug), .preset_words = "false",
     .stored = MB_KEY_SAMPLER_OPTIONS,
     .help = "Fast-dLLM v2: ignore a prompt of exactly B tokens, as the reference does"},

    {"decode", "group", MB_KEY_INT, AT(decode_group), .min = 1, .max = 16, .choices = groups, .preset = "1",
     .help = "most arms of a sample that decode together; 1 = one after the other; auto = as many as the GPU's "
             "memory and best shape of a product allow, on the CPU 1"},

    {"recall", "limit", MB_KEY_INT, AT(recall_limit), .max = MAX_SAMPLES, .preset = "0",
     .harmless = MORE_OF_THE_SAME, .help = "samples per task in the recall pass; 0 = as the quality pass"},

    {"record", "selections", MB_KEY_INT, AT(record_selections), .max = MAX_SAMPLES, .preset = "0",
     .harmless = "a decode is looked at, not changed",
     .help = "samples per task of which prompt, steps and selected keys are stored as they are computed"},
    {"record", "prompts", MB_KEY_INT, AT(record_prompts), .max = MAX_SAMPLES, .preset = "8",
     .harmless = "a decode is looked at, not changed",
     .help = "samples per task of which the prompt's text is stored, for the HTML report; 0 = none"},

    {"latency", "contexts", MB_KEY_INTS, AT(latency.contexts), .min = 32, .max = MAX_TOKENS, .preset = "[4096]",
     .stored = "latency.context", .help = "prefix lengths in tokens"},
    {"latency", "batches", MB_KEY_INTS, AT(latency.batches), .min = 1, .max = 1024, .choices = batches,
     .preset = "[1]", .stored = "latency.batch",
     .help = "batch sizes; \"largest\" = the largest power of two that fits"},
    {"latency", "largest_from", MB_KEY_INT, AT(latency.largest_from), .max = MAX_TOKENS, .preset = "0",
     .harmless = "it says which cases there are; each has its own rows",
     .help = "the batch \"largest\" is measured at contexts from here on"},
    {"latency", "steps", MB_KEY_INTS, AT(latency.steps), .min = 1, .max = 256, .preset = "[0]",
     .preset_words = "[B]", .stored = "latency.steps", .help = "denoising steps per block"},
    {"latency", "blocks_min", MB_KEY_INT, AT(latency.blocks_min), .min = 1, .max = 100000, .preset = "2",
     .harmless = MORE_OF_THE_SAME,
     .help = "measured blocks per case and method, at least; each gives a sample per step"},
    {"latency", "blocks_max", MB_KEY_INT, AT(latency.blocks_max), .min = 1, .max = 100000, .preset = "100",
     .harmless = MORE_OF_THE_SAME, .help = "measured blocks per case and method, at most"},
    {"latency", "seconds", MB_KEY_REAL, AT(latency.seconds), .min = 0.01, .max = 1e5, .preset = "15",
     .harmless = MORE_OF_THE_SAME, .help = "time cap per case and method"},
    {"latency", "error", MB_KEY_REAL, AT(latency.error), .min = 1e-6, .max = 1, .preset = "0.005",
     .harmless = MORE_OF_THE_SAME, .help = "stop when the relative standard error of the median is below"},
    {"latency", "synthetic_cache", MB_KEY_BOOL, AT(latency.synthetic_cache), .preset = "true", .separates = true,
     .help = "random keys and values of realistic norms in place of a prefill"},
    {"latency", "prefill", MB_KEY_BOOL, AT(latency.prefill), .preset = "true", .stored = "latency.phase",
     .help = "also time one prefill of random tokens per context"},
    {"latency", "breakdown_contexts", MB_KEY_INTS, AT(latency.breakdown_contexts), .min = 32, .max = MAX_TOKENS,
     .preset_words = "contexts", .stored = "breakdown.context", .help = "where the breakdown pass looks"},
    {.name = NULL},
};

const mb_key *mb_config_table(const char *section)
{
    return strcmp(section, MB_KEY_TRAINING) == 0 ? mb_train_keys : mb_config_keys;
}

const mb_key *mb_config_key(const char *section, const char *name)
{
    for (const mb_key *key = mb_config_table(section); key->name; key++)
        if (strcmp(key->section, section) == 0 && strcmp(key->name, name) == 0)
            return key;
    return NULL;
}

const mb_key *mb_config_key_at(size_t offset)
{
    const mb_key *key = mb_config_keys;
    while (*key->section || key->size == 0 || key->offset != offset)
        key++;
    return key;
}

const mb_key *mb_config_flag(const char *word)
{
    size_t length = strcspn(word, "=");
    for (const mb_key *key = mb_config_keys; key->name; key++)
        if (key->flag && strcspn(key->flag, " ") == length && strncmp(key->flag, word, length) == 0)
            return key;
    return NULL;
}

const char *mb_key_type_name(mb_key_type type)
{
    switch (type) {
    case MB_KEY_TEXT:
    case MB_KEY_PATH:
        return "text";
    case MB_KEY_INT:
        return "whole number";
    case MB_KEY_REAL:
        return "number";
    case MB_KEY_BOOL:
        return "true or false";
    case MB_KEY_INTS:
        return "list of whole numbers";
    case MB_KEY_CHOICE:
        return "one of";
    case MB_KEY_CHOICES:
        return "list of";
    case MB_KEY_SECTION:
        return "object";
    case MB_KEY_SECTIONS:
        return "object or list of objects";
    case MB_KEY_OWN:
        break;
    }
    return "its own form";
}

/* "whole number 0..1024", "one of bf16|f32". bar: what stands between words. */
static void print_type(mb_text *out, const mb_key *key, const char *bar)
{
    mb_text_puts(out, key->type == MB_KEY_SECTION && key->shorthand ? "text or " : "");
    mb_text_puts(out, mb_key_type_name(key->type));
    const bool number = key->type == MB_KEY_INT || key->type == MB_KEY_REAL || key->type == MB_KEY_INTS;
    if (number)
        mb_text_printf(out, " %.16g..%.16g", key->min, key->max);
    for (const mb_key_choice *c = key->choices; c && c->word; c++)
        mb_text_printf(out, "%s%s", c > key->choices ? bar : number ? " or " : " ", c->word);
    mb_text_puts(out, key->lists ? ", or a list: a run for each" : "");
}

static const char *preset_of(const mb_key *key)
{
    return key->preset_words ? key->preset_words : key->preset;
}

static const char *section_title(const mb_key *key)
{
    return *key->section ? "section " : "top level";
}

void mb_config_help_rows(const mb_key *keys, mb_text *out)
{
    const char *section = "?";
    for (const mb_key *key = keys; key->name; key++) {
        bool extends = key->extends;
        if (strcmp(section, key->section) != 0) {
            section = key->section;
            mb_text_printf(out, "\n%s%s\n", section_title(key), section);
        }
        mb_text_printf(out, "%c %-18s ", extends ? '+' : ' ', key->name);
        print_type(out, key, "|");
        mb_text_printf(out, " (default %s%s%s)\n  %-18s %s\n", preset_of(key), key->flag ? "; " : "",
                       key->flag ? key->flag : "", "", key->help);
    }
}

void mb_config_help(mb_text *out)
{
    mb_text_puts(out, "Keys of a config file (JSON). Any key can be overridden: --set latency.seconds=5,\n"
                      "entries of a list by number: --set sampler.0.steps=16. A key marked + extends a run:\n"
                      "another value continues it. Another value of any other key makes another run.\n");
    mb_config_help_rows(mb_config_keys, out);
}

void mb_config_help_rows_markdown(const mb_key *keys, mb_text *out)
{
    const char *section = "?";
    for (const mb_key *key = keys; key->name; key++) {
        if (strcmp(section, key->section) != 0) {
            section = key->section;
            mb_text_printf(out,
                           "\n**%s%s%s%s**\n\n| key | type | default | flag | extends | what it is |\n"
                           "|---|---|---|---|---|---|\n",
                           section_title(key), *section ? "`" : "", section, *section ? "`" : "");
        }
        mb_text_printf(out, "| `%s` | ", key->name);
        print_type(out, key, ", ");
        mb_text_printf(out, " | %s | %s%s%s | %s | %s |\n", preset_of(key), key->flag ? "`" : "",
                       key->flag ? key->flag : "", key->flag ? "`" : "", key->extends ? "yes" : "", key->help);
    }
}

void mb_config_help_markdown(mb_text *out)
{
    mb_config_help_rows_markdown(mb_config_keys, out);
}
