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
    mb_type type;
    if (cli->word_count != 2 || !cli->out)
        return mb_exit_fail(MB_E_INPUT,
                            "unpack needs a GGUF file and --out DIR: ./harness unpack FILE.gguf --out DIR");
    int rc = mb_chosen_type(cli, MB_F32, &type, &err);
    if (rc == MB_OK)
        rc = mb_model_unpack(cli->words[1], cli->out, type, &err);
    if (rc != MB_OK)
        return mb_exit_fail(rc, err.text);
    if (!cli->quiet)
        mb_print(stdout, "%s: config.json, tokenizer.json, tokenizer_config.json, model.safetensors (%s)",
                 cli->out, mb_type_name(type));
    return 0;
}
