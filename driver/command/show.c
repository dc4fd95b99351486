/*
 * show.c - ./harness show DB ITEM: one item of a run to look at, with the answers of all configurations and, where
 * the run recorded them, prompt, steps and selected keys.
 */
#include "driver/command/commands.h"
#include "driver/os/os.h"
#include "results/results.h"

int mb_command_show(const mb_cli *cli)
{
    mb_error err = {0};
    mb_text text = {0};
    mb_store *store = NULL;
    mb_report_options options = {.max_width = mb_terminal_width(), .full = cli->full};
    mb_show_request request = {.run = cli->run, .method = cli->method, .figures = cli->figures};
    int rc = mb_chosen_format(cli, &options.format, &err);
    if (rc == MB_OK && cli->word_count != 3)
        rc = mb_fail(&err, MB_E_INPUT,
                     "show which item? ./harness show DB ITEM, the item by its key or as TASK:KEY");
    if (rc == MB_OK)
        rc = mb_store_open(&store, cli->words[1], MB_STORE_READ, &err);
    if (rc == MB_OK) {
        request.item = cli->words[2];
        rc = mb_show(store, &request, &options, &text, &err);
    }
    mb_store_close(store, NULL);
    return mb_put_text(cli, &text, rc, &err);
}
