/*
 * fuzz_template.c - any text as a chat template, rendered with a short conversation: a refusal with a sentence
 * that names a line, or a text within its bound.
 */
#include "model/template/template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static mb_value message(mb_arena *arena, const char *role, const char *content)
{
    mb_value value = mb_value_dict(arena);
    mb_dict_put(arena, value, mb_value_string("role"), mb_value_string(role));
    mb_dict_put(arena, value, mb_value_string("content"), mb_value_string(content));
    return value;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mb_template *tpl = NULL;
    mb_arena arena = {0};
    mb_text out = {0};
    mb_error err = {0};
    int rc = mb_template_open(&tpl, (const char *)data, size, "template", &err);
    if (rc == MB_OK) {
        mb_value variables = mb_value_dict(&arena), messages = mb_value_list(&arena, MB_LIST);
        mb_list_add(&arena, messages, message(&arena, "system", "Be brief."));
        mb_list_add(&arena, messages, message(&arena, "user", " a\xc3\xa4</think>b "));
        mb_dict_put(&arena, variables, mb_value_string("messages"), messages);
        mb_dict_put(&arena, variables, mb_value_string("add_generation_prompt"), mb_value_bool(true));
        rc = mb_template_render(tpl, &arena, variables, 0, 0, &out, &err);
    }
    if (rc != MB_OK && ((rc != MB_E_INPUT && rc != MB_E_SYSTEM) || err.text[0] == '\0'))
        abort();
    if (out.length > MB_TEMPLATE_OUTPUT_MAX + (64u << 10))
        abort();
    mb_text_free(&out);
    mb_template_close(tpl);
    mb_arena_free(&arena);
    return 0;
}
