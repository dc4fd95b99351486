/*
 * unpack.c - ./harness unpack FILE.gguf --out DIR: the model of a GGUF file as a checkpoint folder, for programs
 * that want one (training begins with a folder).
 */
#include "driver/command/commands.h"

#include "driver/os/os.h"
#include "model/model.h"

#include <stdio.h>
#include <string.h>

int mb_command_unpack(const mb_cli *cli)
{
    mb_error err = {0};
    const bool bf16 = cli->type && strcmp(cli->type, "bf16") == 0;
    if (cli->word_count != 2 || !cli->out)
        return mb_exit_fail(MB_E_INPUT,
                            "unpack needs a GGUF file and --out DIR: ./harness unpack FILE.gguf --out DIR");
    if (cli->type && !bf16 && strcmp(cli->type, "f32") != 0)
        return mb_exit_fail(MB_E_INPUT, "--type is bf16 or f32");
    int rc = mb_model_unpack(cli->words[1], cli->out, bf16 ? MB_BF16 : MB_F32, &err);
    if (rc != MB_OK)
        return mb_exit_fail(rc, err.text);
    if (!cli->quiet)
        printf("%s: config.json, tokenizer.json, tokenizer_config.json, model.safetensors (%s)\n", cli->out,
               bf16 ? "bf16" : "f32");
    return 0;
}
