/*
 * baseline.c - what the exact attention of a run is against the best public kernel on the same GPU: a speed-up
 * over a slow baseline says nothing. results/baselines.txt has a line a GPU; report and figures say it beside
 * every speed-up.
 */
#include "results/store.h"

#include <stdio.h>
#include <string.h>

/* A line of results/baselines.txt. */
typedef struct measured {
    char gpu[128], ratio[128], peer[128], where[128];
} measured;

static bool find(const char *gpu, measured *m)
{
    const char *line = mb_embedded_find("results/baselines.txt", NULL);
    for (; line && *line; line += strcspn(line, "\n") + (line[strcspn(line, "\n")] == '\n'))
        if (*line != '#' &&
            sscanf(line, "%127[^\t\n]\t%127[^\t\n]\t%127[^\t\n]\t%127[^\n]", m->gpu, m->ratio, m->peer,
                   m->where) == 4 &&
            strcmp(m->gpu, gpu) == 0)
            return true;
    return false;
}

static void say(mb_text *lines, const char *gpu, const char *device)
{
    measured m;
    if (find(gpu, &m))
        mb_text_printf(lines,
                       "baseline of every speed-up: this program's exact attention; its time is %s of %s's on %s "
                       "(%s)\n",
                       m.ratio, m.peer, m.gpu, m.where);
    else
        mb_text_printf(lines,
                       "baseline of every speed-up: this program's exact attention; it was not measured against a "
                       "public kernel on %s\n",
                       *gpu ? gpu : device);
}

int baseline_lines(mb_store *store, int64_t run_id, mb_text *lines, mb_error *err)
{
    sqlite3_stmt *s = store_statement(store,
                                      "SELECT coalesce(gpu, ''), coalesce(device, '') FROM v_runs WHERE run_id = "
                                      "?1 AND EXISTS (SELECT 1 FROM v_speedup WHERE run_id = ?1)",
                                      err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run_id);
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        say(lines, (const char *)sqlite3_column_text(s, 0), (const char *)sqlite3_column_text(s, 1));
    sqlite3_reset(s);
    if (code != SQLITE_DONE)
        return store_error(store, code, "reading the baseline", err);
    return lines->failed ? mb_no_memory(err, "the baseline") : MB_OK;
}
