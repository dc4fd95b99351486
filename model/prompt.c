/*
 * prompt.c - the benchmark's text -> the tokens that the model sees: the folder's chat template or the family's
 * format, and LongBench's cut through the middle.
 *
 * The cut is LongBench's own (its pred.py): tokenise, keep half of the limit from both ends, decode each half,
 * join the TEXTS, put the template around and tokenise again. LongBench v2 (its pred.py) keeps one token more
 * behind the seam where the limit is odd, and decodes what is left in one call: a character whose bytes lie on
 * both sides of the seam is then whole or broken as a whole. The second tokenisation may differ from the first
 * around the seam, so the count drifts by a few tokens; only when the result would pass the hard limit is more cut
 * away than LongBench does.
 */
#include "model/internal.h"
#include "model/template/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A family's chat format around one user message, and the tokens without which it would be plain text. */
struct chat_format {
    const char *system, *system_end; /* around a system message of the caller's; NULL: its place is not known */
    const char *first;               /* in front when the caller has no system message: [0] as published, */
    const char *thinking;            /* and with thinking on; NULL = the same */
    const char *user, *answer;
    const char *no_thinking; /* behind the answer's header with thinking off; NULL = nothing */
    bool switches;           /* thinking can be switched */
    const char *tokens[3];   /* unused ones NULL */
};

/* The families' published chat formats: ChatML, where only Fast-dLLM v2 puts a system message in front when the
 * caller has none; LLaDA2's roles, with the system message that switches thinking off. */
static const struct chat_format *chat_format(mb_family family)
{
    static const struct chat_format formats[] = {
        [MB_FAMILY_SDAR] = {.system = "<|im_start|>system\n",
                            .system_end = "<|im_end|>\n",
                            .first = "",
                            .user = "<|im_start|>user\n",
                            .answer = "<|im_end|>\n<|im_start|>assistant\n",
                            .no_thinking = "<think>\n\n</think>\n\n",
                            .switches = true,
                            .tokens = {"<|im_start|>", "<|im_end|>", NULL}},
        [MB_FAMILY_FAST_DLLM_V2] = {.system = "<|im_start|>system\n",
                                    .system_end = "<|im_end|>\n",
                                    .first = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
                                    .user = "<|im_start|>user\n",
                                    .answer = "<|im_end|>\n<|im_start|>assistant\n",
                                    .tokens = {"<|im_start|>", "<|im_end|>", NULL}},
        [MB_FAMILY_LLADA2] = {.first = "<role>SYSTEM</role>detailed thinking off<|role_end|>",
                              .thinking = "<role>SYSTEM</role>detailed thinking on<|role_end|>",
                              .user = "<role>HUMAN</role>",
                              .answer = "<|role_end|><role>ASSISTANT</role>",
                              .switches = true,
                              .tokens = {"<role>", "</role>", "<|role_end|>"}},
        [MB_FAMILY_DIFFUSION_GEMMA] = {.user = NULL}, /* its folders have a template */
    };
    return &formats[family];
}

/* The family's own format. */
static void write_family(mb_text *out, const mb_model *model, const char *text, size_t length)
{
    const struct chat_format *format = chat_format(model->config.family);
    const mb_chat *chat = &model->chat;
    if (chat->system) {
        mb_text_puts(out, format->system);
        mb_text_puts(out, chat->system);
        mb_text_puts(out, format->system_end);
    } else
        mb_text_puts(out, chat->thinking == MB_THINKING_ON && format->thinking ? format->thinking : format->first);
    mb_text_puts(out, format->user);
    mb_text_append(out, text, length);
    mb_text_puts(out, format->answer);
    if (chat->thinking == MB_THINKING_OFF && format->no_thinking)
        mb_text_puts(out, format->no_thinking);
}

static int render(mb_text *out, const mb_model *model, const mb_prompt_request *request, const char *text,
                  size_t length, mb_error *err)
{
    int rc = MB_OK;
    if (!request->chat)
        mb_text_append(out, text, length);
    else if (model->chat_template) {
        const int thinking =
            model->chat.thinking == MB_THINKING_UNSET ? -1 : model->chat.thinking == MB_THINKING_ON;
        mb_conversation conversation = {
            .text = text, .length = length, .system = model->chat.system, .thinking = thinking, .now = time(NULL)};
        rc = mb_chat_template_write(model->chat_template, &conversation, out, err);
    } else
        write_family(out, model, text, length);
    if (request->answer_prefix)
        mb_text_puts(out, request->answer_prefix);
    return rc;
}

/* What the family's format cannot say, and marks that are plain text to the tokenizer and would be read as words.
 */
static int check_family(const mb_model *model, mb_error *err)
{
    const struct chat_format *format = chat_format(model->config.family);
    const mb_chat *chat = &model->chat;
    if (!format->user)
        return mb_fail(
            err, MB_E_INPUT,
            "chat: no format of prompts is known for the family of %s: its folder needs a chat template "
            "(chat_template.jinja, or \"chat_template\" in tokenizer_config.json)",
            model->config.name);
    if (chat->system && !format->system)
        return mb_fail(
            err, MB_E_INPUT,
            "chat: the family's format of %s has no known place for a system message: use a folder with "
            "a chat template, or do without \"system\"",
            model->config.name);
    if (chat->thinking != MB_THINKING_UNSET && !format->switches)
        return mb_fail(err, MB_E_INPUT,
                       "chat: the family's format of %s has no switch for thinking: do without \"thinking\"",
                       model->config.name);
    for (size_t i = 0; i < 3 && format->tokens[i]; i++)
        if (mb_tokenizer_id(model->tokenizer, format->tokens[i]) < 0)
            return mb_fail(err, MB_E_INPUT, "the tokenizer of %s lacks %s, which the chat template needs",
                           model->config.name, format->tokens[i]);
    return MB_OK;
}

static int check_chat(const mb_model *model, mb_error *err)
{
    if (model->chat_error)
        return mb_fail(err, MB_E_INPUT, "%s; \"chat\": {\"template\": \"family\"} uses the family's own format",
                       model->chat_error);
    return model->chat_template ? MB_OK : check_family(model, err);
}

const char *mb_model_chat(const mb_model *model, char hash[MB_HASH_CAP])
{
    snprintf(hash, MB_HASH_CAP, "%s", model->chat_template ? mb_chat_template_hash(model->chat_template) : "");
    return model->chat_template ? mb_chat_template_file(model->chat_template) : NULL;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Where the text stands in what was made of it, as it is or without the blanks around it, which templates take
 * off. False: nowhere, or at two places. */
static bool find_text(const char *whole, size_t size, const char *text, size_t length, size_t *from, size_t *to)
{
    for (int trimmed = 0; trimmed < 2; trimmed++) {
        const char *at = length ? memmem(whole, size, text, length) : NULL;
        if (at) {
            *from = (size_t)(at - whole);
            *to = *from + length;
            return !memmem(at + 1, size - *from - 1, text, length);
        }
        while (length && is_blank(*text)) {
            text++;
            length--;
        }
        while (length && is_blank(text[length - 1]))
            length--;
    }
    return false;
}

/* Tokens of a rendered prompt. As a whole: added tokens that stand in the text count as such, as in the reference,
 * unless the request wants the special ones among them as text. */
static int encode_whole(const mb_model *model, const mb_prompt_request *request, const mb_text *whole,
                        const char *text, size_t length, int32_t **ids, size_t *n, mb_error *err)
{
    const char *data = whole->data ? whole->data : "";
    size_t from = 0, to = 0;
    if (!request->special_as_text || mb_tokenizer_special_in(model->tokenizer, text, length) == 0)
        return mb_tokenizer_encode(model->tokenizer, data, whole->length, true, ids, n, err);
    if (!find_text(data, whole->length, text, length, &from, &to))
        return mb_fail(
            err, MB_E_SAMPLE,
            "the chat template changes the text of this row or repeats it, so its special tokens cannot "
            "be kept as text: use \"special_tokens_in_data\": \"token\"");
    return mb_tokenizer_encode_data(model->tokenizer, data, whole->length, from, to, ids, n, err);
}

/* The tokens that the folder's tokenizer puts in front of a text; a chat template writes them itself. */
static int put_begin(const mb_model *model, int32_t **ids, size_t *n, mb_error *err)
{
    size_t count = 0;
    const int32_t *begin = mb_tokenizer_begin(model->tokenizer, &count);
    if (count == 0)
        return MB_OK;
    int32_t *larger = realloc(*ids, (*n + count) * sizeof *larger);
    if (!larger)
        return mb_no_memory(err, "a prompt");
    memmove(larger + count, larger, *n * sizeof *larger);
    memcpy(larger, begin, count * sizeof *larger);
    *ids = larger;
    *n += count;
    return MB_OK;
}

static int encode_rendered(const mb_model *model, const mb_prompt_request *request, const char *text,
                           size_t length, int32_t **ids, size_t *n, mb_error *err)
{
    mb_text whole = {0};
    int rc = render(&whole, model, request, text, length, err);
    if (rc == MB_OK && whole.failed)
        rc = mb_no_memory(err, "a prompt of %zu bytes", length);
    if (rc == MB_OK)
        rc = encode_whole(model, request, &whole, text, length, ids, n, err);
    if (rc == MB_OK && !request->chat)
        rc = put_begin(model, ids, n, err);
    mb_text_free(&whole);
    return rc;
}

static int decode_onto(mb_text *out, const mb_model *model, const int32_t *ids, size_t n, mb_error *err)
{
    char *text = NULL;
    size_t length = 0;
    int rc = mb_tokenizer_decode(model->tokenizer, ids, n, true, &text, &length, err);
    if (rc == MB_OK)
        mb_text_append(out, text, length);
    free(text);
    return rc;
}

/* Keeps `keep` of n tokens, from both ends. joined: LongBench v2's ids[:keep//2] + ids[-keep//2:], decoded at
 * once. */
static int cut_middle(const mb_model *model, const int32_t *ids, size_t n, size_t keep, bool joined, mb_text *out,
                      mb_error *err)
{
    const size_t head = keep / 2, tail = joined ? keep - head : head;
    int rc = MB_OK;
    mb_text_clear(out);
    if (joined) {
        int32_t *left = malloc((keep + 1) * sizeof *left);
        if (!left)
            return mb_no_memory(err, "cutting a prompt");
        memcpy(left, ids, head * sizeof *left);
        memcpy(left + head, ids + (n - tail), tail * sizeof *left);
        rc = decode_onto(out, model, left, keep, err);
        free(left);
    } else {
        rc = decode_onto(out, model, ids, head, err);
        if (rc == MB_OK)
            rc = decode_onto(out, model, ids + (n - tail), tail, err);
    }
    return rc == MB_OK && out->failed ? mb_no_memory(err, "cutting a prompt") : rc;
}

/* Cuts to the limit and builds the prompt; cuts deeper while it passes hard_limit, as far as drift and the
 * template explain it. */
static int build_cut(const mb_model *model, const mb_prompt_request *request, const int32_t *plain, size_t plain_n,
                     int32_t **ids, size_t *n, mb_error *err)
{
    const size_t hard = (size_t)request->hard_limit;
    const size_t limit = plain_n < (size_t)request->max_tokens ? plain_n : (size_t)request->max_tokens;
    size_t keep = request->cut_joined ? limit : limit / 2 * 2, frame = 0;
    mb_text text = {0};
    /* What the template and prefix add (encoded around nothing), plus drift at two seams. */
    int rc = encode_rendered(model, request, "", 0, ids, &frame, err);
    free(*ids);
    *ids = NULL;
    const size_t deepest = limit / 32 + frame + 16;
    while (rc == MB_OK) {
        rc = cut_middle(model, plain, plain_n, keep, request->cut_joined, &text, err);
        if (rc == MB_OK)
            rc = encode_rendered(model, request, text.data ? text.data : "", text.length, ids, n, err);
        if (rc != MB_OK || hard == 0 || *n <= hard)
            break;
        size_t step = (*n - hard + 1) / 2 * 2; /* evenly from both ends */
        if (step > keep || limit - (keep - step) > deepest + 1)
            break; /* not drift: the limits do not fit together; the caller reports it */
        keep -= step;
        free(*ids);
        *ids = NULL;
    }
    mb_text_free(&text);
    return rc;
}

int mb_prompt_build(const mb_model *model, const mb_prompt_request *request, int32_t **ids, size_t *n,
                    bool *truncated, mb_error *err)
{
    int32_t *plain = NULL;
    size_t plain_n = 0;
    mb_text bytes = {0};
    int rc = MB_OK;
    *ids = NULL;
    *n = 0;
    *truncated = false;
    if (!model->tokenizer)
        return mb_fail(err, MB_E_INPUT,
                       "model %s has random weights and no tokenizer: it can run latency passes, but read no text",
                       model->config.name);
    if (request->chat && (rc = check_chat(model, err)) != MB_OK)
        return rc;
    mb_text_unspell(&bytes, request->text ? request->text : "");
    const char *text = bytes.data ? bytes.data : "";
    const size_t length = bytes.length;
    if (bytes.failed) {
        rc = mb_no_memory(err, "a prompt");
        goto out;
    }
    if (request->max_tokens > 0) {
        rc = encode_whole(model, request, &bytes, text, length, &plain, &plain_n, err);
        if (rc == MB_OK)
            rc = put_begin(model, &plain, &plain_n, err);
        if (rc != MB_OK)
            goto out;
        *truncated = plain_n > (size_t)request->max_tokens;
    }
    if (!*truncated) {
        rc = encode_rendered(model, request, text, length, ids, n, err);
        /* A text just under max_tokens may still pass the hard limit with its template: cut it too. */
        if (rc == MB_OK && plain && request->hard_limit > 0 && *n > (size_t)request->hard_limit) {
            free(*ids);
            *ids = NULL;
            *truncated = true;
        }
    }
    if (rc == MB_OK && *truncated)
        rc = build_cut(model, request, plain, plain_n, ids, n, err);
    if (rc == MB_OK && request->hard_limit > 0 && *n > (size_t)request->hard_limit)
        rc = mb_fail(err, MB_E_SAMPLE,
                     "the prompt has %zu tokens%s, the run has room for %d: raise the context or lower the prompt "
                     "limit",
                     *n, *truncated ? " after its middle was cut" : "", request->hard_limit);
    if (rc == MB_OK && *n == 0)
        rc = mb_fail(err, MB_E_SAMPLE, "the prompt is empty");
out:
    free(plain);
    mb_text_free(&bytes);
    if (rc != MB_OK) {
        free(*ids);
        *ids = NULL;
        *n = 0;
    }
    return rc;
}
