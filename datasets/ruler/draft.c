/*
 * draft.c - what the makers of RULER samples (niah.c, qa.c, words.c) share: filling an entry of the prompt file,
 * the answer prefix, and the sentence for a failed allocation.
 *
 * A draft is one sample in the making. ruler.c owns it and calls its `write` with sizes until one fits.
 */
#include "datasets/ruler/ruler.h"

#include <stdlib.h>
#include <string.h>

int mb_ruler_memory(mb_error *err)
{
    return mb_no_memory(err, "a RULER sample");
}

int mb_ruler_fill(const mb_ruler *ruler, const char *name, const mb_prompt_pair *pairs, size_t count, mb_text *out,
                  mb_error *err)
{
    const char *text = mb_json_string(ruler->prompts, name);
    if (!text)
        return mb_fail(err, MB_E_BUG, "datasets/prompts/ruler.json has no \"%s\"", name);
    mb_prompt_fill(out, text, strlen(text), pairs, count, false);
    return out->failed ? mb_ruler_memory(err) : MB_OK;
}

int mb_ruler_set_prefix(mb_ruler_draft *draft, mb_text *prefix, mb_error *err)
{
    free(draft->sample->answer_prefix);
    draft->sample->answer_prefix = mb_text_take(prefix);
    return draft->sample->answer_prefix ? MB_OK : mb_ruler_memory(err);
}
