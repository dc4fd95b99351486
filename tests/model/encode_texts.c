/*
 * encode_texts.c - many texts to ids, for check_reference.sh: reads length (32 bit, this machine's order) and
 * bytes of each text from standard input, writes number of ids and ids (32 bit). Added tokens are looked for.
 *     build/tests/model/encode_texts FOLDER [decode] < texts > ids
 * With `decode` the ids go back to text, special tokens left out: after the ids comes length and bytes of that.
 */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const mb_error *err)
{
    fprintf(stderr, "encode_texts: %s\n", err->text);
    return 1;
}

int main(int argc, char **argv)
{
    mb_tokenizer *tokenizer = NULL;
    mb_error err = {0};
    uint32_t length;
    bool decode = argc == 3 && strcmp(argv[2], "decode") == 0;
    if (argc < 2 || mb_tokenizer_open(&tokenizer, argv[1], &err) != MB_OK)
        return fail(&err);
    while (fread(&length, sizeof length, 1, stdin) == 1) {
        char *text = malloc((size_t)length + 1), *back = NULL;
        int32_t *ids = NULL;
        size_t n = 0, back_n = 0;
        if (!text || fread(text, 1, length, stdin) != length)
            return 1;
        if (mb_tokenizer_encode(tokenizer, text, length, true, &ids, &n, &err) != MB_OK)
            return fail(&err);
        uint32_t count = (uint32_t)n;
        fwrite(&count, sizeof count, 1, stdout);
        fwrite(ids, sizeof *ids, n, stdout);
        if (decode) {
            if (mb_tokenizer_decode(tokenizer, ids, n, true, &back, &back_n, &err) != MB_OK)
                return fail(&err);
            count = (uint32_t)back_n;
            fwrite(&count, sizeof count, 1, stdout);
            fwrite(back, 1, back_n, stdout);
        }
        free(back);
        free(ids);
        free(text);
    }
    mb_tokenizer_close(tokenizer);
    return fflush(stdout) == 0 ? 0 : 1;
}
