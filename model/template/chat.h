/*
 * chat.h - a conversation as a checkpoint folder's own chat template writes it: which file holds the template,
 * which variables it sees. Internal to model/.
 */
#ifndef MB_MODEL_TEMPLATE_CHAT_H
#define MB_MODEL_TEMPLATE_CHAT_H

#include "model/template/template.h"

struct cJSON;

typedef struct mb_chat_template mb_chat_template;

/* The folder's template, in the order of transformers 5.24: chat_template.jinja, then tokenizer_config.json's
 * "chat_template" (a text, or a list of {name, template} of which "default" is taken), then chat_template.json.
 * *out is NULL when the folder has none. A template that cannot be parsed is MB_E_INPUT. */
int mb_chat_template_open(mb_chat_template **out, const char *folder, mb_error *err);
void mb_chat_template_close(mb_chat_template *chat);
/* Content hash of the template's text, 32 hex digits. */
const char *mb_chat_template_hash(const mb_chat_template *chat);
/* The file it was read from. */
const char *mb_chat_template_file(const mb_chat_template *chat);

/* One user message, a system message in front when system is not NULL, and the header of the answer.
 * thinking: -1 = the variable is not set, else enable_thinking (and thinking) is false or true. now: for templates
 * that write the date. Errors: the template refuses or is not supported (its file and line); it has no switch for
 * thinking; it leaves out the text or the system message. */
typedef struct mb_conversation {
    const char *text;
    size_t length;
    const char *system; /* NULL = none */
    int thinking;
    time_t now;
} mb_conversation;
int mb_chat_template_write(const mb_chat_template *chat, const mb_conversation *conversation, mb_text *out,
                           mb_error *err);

/* JSON as a template's value; UNDEFINED when memory ran out. Whole numbers are integers. */
mb_value mb_value_from_json(mb_arena *arena, const struct cJSON *json);

#endif
