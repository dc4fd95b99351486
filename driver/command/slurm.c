/*
 * slurm.c - ./harness slurm: a run as a job array of shards and a merge job behind it. Slurm does the scheduling;
 * this writes two scripts (tools/slurm/), submits them, and reads back how far the shards are.
 */
#include "driver/command/commands.h"

#include "driver/os/os.h"
#include "results/results.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct cluster_job {
    const mb_cli *cli;
    char *name, *result, *folder; /* "table", "results/table.db", "results/table.shards" */
    long first, last, job;        /* job 0: not submitted */
} cluster_job;

static void job_free(cluster_job *job)
{
    free(job->name);
    free(job->result);
    free(job->folder);
}

/* ---- what is to be done ---- */

/* A path from the root: a job may start elsewhere. */
static char *whole_path(const char *path)
{
    char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);
    char *whole = path[0] == '/' ? mb_string_copy(path) : here ? mb_string_format("%s/%s", here, path) : NULL;
    free(here);
    return whole;
}

static int read_config(cluster_job *job, mb_error *err)
{
    const mb_cli *cli = job->cli;
    mb_config_list list;
    mb_config_flags flags = {
        .sets = cli->sets, .set_count = cli->set_count, .values = cli->values, .value_count = cli->value_count};
    int rc = mb_config_load(&list, cli->config, &flags, err);
    if (rc != MB_OK)
        return rc;
    const mb_run_config *config = &list.configs[0];
    bool times = config->passes & MB_RUN_TIMES, samples = config->passes & MB_RUN_SAMPLES;
    for (size_t i = 1; rc == MB_OK && i < list.count; i++)
        if (!(list.configs[i].passes & MB_RUN_TIMES) != !times ||
            strcmp(list.configs[i].results, config->results) != 0)
            rc = mb_fail(err, MB_E_INPUT,
                         "the runs of %s differ in their database or in having timed passes: submit "
                         "them one by one",
                         cli->config);
    if (rc == MB_OK && !samples)
        rc = mb_fail(err, MB_E_INPUT,
                     "the config has timed passes only, and those are not split: run it in one job");
    size_t stem = strlen(config->results);
    if (stem > 3 && strcmp(config->results + stem - 3, ".db") == 0)
        stem -= 3;
    char *folder = mb_string_format("%.*s.shards", (int)stem, config->results);
    job->name = mb_string_copy(config->name);
    job->result = whole_path(config->results);
    job->folder = folder ? whole_path(folder) : NULL;
    job->first = times ? 0 : 1;
    job->last = (long)cli->shards;
    free(folder);
    mb_config_list_free(&list);
    if (rc == MB_OK && (!job->name || !job->result || !job->folder))
        rc = mb_no_memory(err, "a job");
    return rc;
}

/* ---- the scripts ---- */

/* sbatch reads lines, and the shell what comes behind one: a newline inside a word would be a command. */
static int check_lines(const cluster_job *job, mb_error *err)
{
    const char *words[][2] = {{"the config's name", job->name},
                              {"the folder of the shards", job->folder},
                              {"--partition", job->cli->partition},
                              {"--time", job->cli->time},
                              {"--sbatch", job->cli->sbatch}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (const char *c = words[i][1] ? words[i][1] : ""; *c; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7f)
                return mb_fail(err, MB_E_INPUT,
                               "%s holds a control character, and in a script of Slurm a line ends there: \"%s\"",
                               words[i][0], words[i][1]);
    return MB_OK;
}

static void put_quoted(mb_text *out, const char *word)
{
    mb_text_puts(out, "'");
    for (const char *p = word; *p; p++)
        mb_text_append(out, *p == '\'' ? "'\\''" : p, *p == '\'' ? 4 : 1);
    mb_text_puts(out, "'");
}

static void put_assignment(mb_text *out, const char *name, const char *value)
{
    mb_text_printf(out, "%s=", name);
    put_quoted(out, value);
    mb_text_puts(out, "\n");
}

static void put_program(mb_text *out)
{
    char program[4096];
    char *here = getcwd(NULL, 0);
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = '\0';
    mb_text_puts(out, "cd ");
    put_quoted(out, here ? here : "."); /* paths of the config count from here */
    mb_text_puts(out, " || exit 1\n");
    put_assignment(out, "harness", program);
    free(here);
}

/* The lines that sbatch reads, the same for both scripts. */
static void put_head(const cluster_job *job, const char *kind, const char *log, mb_text *out)
{
    const mb_cli *cli = job->cli;
    mb_text_printf(out, "#!/usr/bin/env bash\n#SBATCH --job-name=%s-%s\n", job->name, kind);
    if (cli->partition)
        mb_text_printf(out, "#SBATCH --partition=%s\n", cli->partition);
    mb_text_printf(out, "#SBATCH --output=%s/%s\n", job->folder, log);
}

static void put_shard_script(const cluster_job *job, mb_text *out)
{
    const mb_cli *cli = job->cli;
    put_head(job, "shard", "%a.log", out);
    mb_text_printf(out, "#SBATCH --array=%ld-%ld\n", job->first, job->last);
    mb_text_puts(out, "#SBATCH --open-mode=append\n#SBATCH --requeue\n#SBATCH --signal=B:USR1@120\n");
    if (cli->time)
        mb_text_printf(out, "#SBATCH --time=%s\n", cli->time);
    if (cli->sbatch)
        mb_text_printf(out, "#SBATCH %s\n", cli->sbatch);
    put_program(out);
    mb_text_printf(out, "shards=%ld\n", job->last);
    put_assignment(out, "folder", job->folder);
    mb_text_puts(out, "run=(");
    if (cli->config) {
        mb_text_puts(out, "--config ");
        put_quoted(out, cli->config);
    }
    for (size_t i = 0; i < cli->set_count; i++) {
        mb_text_puts(out, " --set ");
        put_quoted(out, cli->sets[i]);
    }
    for (size_t i = 0; i < cli->plugin_count; i++) {
        mb_text_puts(out, " --plugin ");
        put_quoted(out, cli->plugins[i]);
    }
    if (cli->devices) {
        mb_text_puts(out, " --devices ");
        put_quoted(out, cli->devices);
    }
    mb_text_puts(out, ")\n");
    mb_text_puts(out, mb_embedded_find("tools/slurm/shard.sh", NULL));
}

static void put_merge_script(const cluster_job *job, mb_text *out)
{
    put_head(job, "merge", "merge.log", out);
    put_program(out);
    put_assignment(out, "folder", job->folder);
    put_assignment(out, "result", job->result);
    mb_text_puts(out, mb_embedded_find("tools/slurm/merge.sh", NULL));
}

static int write_script(const cluster_job *job, const char *name, mb_text *text, mb_error *err)
{
    char *path = mb_string_format("%s/%s", job->folder, name);
    int rc =
        path && !text->failed ? mb_file_write(path, text->data, text->length, err) : mb_no_memory(err, "a script");
    if (rc == MB_OK && !job->cli->quiet)
        mb_print(stdout, "wrote      %s", path);
    free(path);
    return rc;
}

/* ---- submitting ---- */

/* Runs a command of Slurm and reads its first line as a number. */
static int submit(const char *command, long *id, mb_error *err)
{
    char line[256] = "";
    FILE *pipe = popen(command, "r");
    if (!pipe)
        return mb_fail(err, MB_E_SYSTEM, "%s: cannot be started", command);
    bool said = fgets(line, sizeof line, pipe) != NULL;
    int status = pclose(pipe);
    *id = strtol(line, NULL, 10);
    if (status != 0 || !said || *id <= 0)
        return mb_fail(err, MB_E_SYSTEM, "%s ended with exit code %d and said \"%.*s\"", command,
                       WIFEXITED(status) ? WEXITSTATUS(status) : -1, (int)strcspn(line, "\n"), line);
    return MB_OK;
}

static int submit_both(cluster_job *job, mb_error *err)
{
    mb_text command = {0}, text = {0};
    long merge = 0;
    mb_text_puts(&command, "sbatch --parsable ");
    mb_text_printf(&text, "%s/shard.sh", job->folder);
    put_quoted(&command, text.data ? text.data : "");
    int rc = command.failed ? mb_no_memory(err, "a command") : submit(command.data, &job->job, err);
    mb_text_clear(&command);
    mb_text_clear(&text);
    mb_text_printf(&command, "sbatch --parsable --dependency=afterany:%ld ", job->job);
    mb_text_printf(&text, "%s/merge.sh", job->folder);
    put_quoted(&command, text.data ? text.data : "");
    if (rc == MB_OK)
        rc = command.failed ? mb_no_memory(err, "a command") : submit(command.data, &merge, err);
    mb_text_clear(&text);
    mb_text_printf(&text, "%ld %ld %ld\n", job->job, job->first, job->last);
    char *path = mb_string_format("%s/job", job->folder);
    if (rc == MB_OK)
        rc = path ? mb_file_write(path, text.data, text.length, err) : mb_no_memory(err, "a path");
    if (rc == MB_OK)
        mb_print(stdout, "submitted  job %ld, shards %ld to %ld; job %ld merges them into %s", job->job,
                 job->first, job->last, merge, job->result);
    free(path);
    mb_text_free(&command);
    mb_text_free(&text);
    return rc;
}

static int write_and_submit(cluster_job *job, mb_error *err)
{
    mb_text shard = {0}, merge = {0};
    int rc = MB_OK;
    if (job->last < 1 || job->last > 1000000)
        rc = mb_fail(err, MB_E_INPUT, "how many shards? ./harness slurm --config FILE --shards N --partition P");
    if (rc == MB_OK)
        rc = check_lines(job, err);
    if (rc == MB_OK)
        rc = mb_folder_make(job->folder, err);
    put_shard_script(job, &shard);
    put_merge_script(job, &merge);
    if (rc == MB_OK)
        rc = write_script(job, "shard.sh", &shard, err);
    if (rc == MB_OK)
        rc = write_script(job, "merge.sh", &merge, err);
    mb_text_free(&shard);
    mb_text_free(&merge);
    if (rc != MB_OK || !job->cli->dry_run)
        return rc == MB_OK ? submit_both(job, err) : rc;
    mb_print(
        stdout,
        "not submitted: --dry-run. By hand: sbatch --parsable %s/shard.sh, then sbatch --dependency=afterany:ID "
        "%s/merge.sh",
        job->folder, job->folder);
    return MB_OK;
}

/* ---- how far it is ---- */

typedef struct shard_state {
    char stored[24]; /* of the run in its database: done, running, ...; "" = there is no database */
    char queued[24]; /* PENDING, RUNNING, ...; "" = not in the queue */
    long samples, failed;
} shard_state;

/* What the queue says of the array's tasks. False: there is no answer. */
static bool read_queue(const cluster_job *job, shard_state *states)
{
    char line[256], command[128];
    if (job->job == 0)
        return false;
    snprintf(command, sizeof command, "squeue -h -r -j %ld -o '%%K %%T' 2>/dev/null", job->job);
    FILE *pipe = popen(command, "r");
    while (pipe && fgets(line, sizeof line, pipe)) {
        char state[24] = "";
        long number = -1;
        if (sscanf(line, "%ld %23s", &number, state) == 2 && number >= job->first && number <= job->last)
            memcpy(states[number - job->first].queued, state, sizeof state);
    }
    /* A job that ended long ago is unknown to squeue, which says so by its exit code: it queues nothing. */
    int status = pipe ? pclose(pipe) : -1;
    return pipe && !(WIFEXITED(status) && WEXITSTATUS(status) == 127);
}

static int read_shard(const cluster_job *job, long number, shard_state *state, mb_error *err)
{
    mb_store *store = NULL;
    mb_text row = {0};
    char *path = mb_string_format("%s/%ld.db", job->folder, number);
    int rc = MB_OK;
    if (!path)
        return mb_no_memory(err, "a path");
    if (mb_file_exists(path) && !mb_store_is_blank(path)) {
        rc = mb_store_open(&store, path, MB_STORE_READ, err);
        if (rc == MB_OK) /* of several runs in one file the worst */
            rc = mb_table_query(
                store,
                "SELECT state, sum(samples) OVER (), sum(failed) OVER () FROM v_runs ORDER BY state = "
                "'done', session_id DESC LIMIT 1",
                MB_TABLE_CSV, 0, &row, err);
        const char *line = row.data ? strchr(row.data, '\n') : NULL;
        if (rc == MB_OK && line)
            sscanf(line + 1, "%23[^,],%ld,%ld", state->stored, &state->samples, &state->failed);
        mb_store_close(store, NULL);
    }
    mb_text_free(&row);
    free(path);
    return rc;
}

/* One word for a shard out of what is stored and what is queued. */
static const char *word_of(const shard_state *state, bool queue)
{
    if (strcmp(state->stored, "done") == 0)
        return "done";
    if (strcmp(state->queued, "PENDING") == 0 || strcmp(state->queued, "REQUEUED") == 0)
        return "waiting";
    if (*state->queued || (!queue && strcmp(state->stored, "running") == 0))
        return "running";
    if (strcmp(state->stored, "running") == 0) /* killed without a word */
        return "failed";
    return *state->stored ? state->stored : "not started";
}

static int read_job(cluster_job *job, mb_error *err)
{
    char *path = mb_string_format("%s/job", job->folder), *text = NULL;
    size_t size = 0;
    int rc = path ? MB_OK : mb_no_memory(err, "a path");
    if (rc == MB_OK && !mb_file_exists(path))
        rc = mb_fail(err, MB_E_INPUT, "%s: nothing was submitted: ./harness slurm --config FILE --shards N does",
                     path);
    if (rc == MB_OK)
        rc = mb_file_read(path, 4096, &text, &size, err);
    if (rc == MB_OK && (sscanf(text, "%ld %ld %ld", &job->job, &job->first, &job->last) != 3 || job->first < 0 ||
                        job->last < job->first || job->last > 1000000))
        rc = mb_fail(err, MB_E_INPUT, "%s: is not what ./harness slurm writes", path);
    free(text);
    free(path);
    return rc;
}

static const char *const words[] = {"done", "running", "waiting", "interrupted", "failed", "not started"};
enum { WORDS = sizeof words / sizeof *words };

/* Reads every shard, prints those that are not done and counts all of them by their word. */
static int show_shards(const cluster_job *job, shard_state *states, bool queue, long counts[WORDS], long *samples,
                       mb_error *err)
{
    int rc = MB_OK;
    for (long number = job->first; rc == MB_OK && number <= job->last; number++) {
        shard_state *state = &states[number - job->first];
        rc = read_shard(job, number, state, err);
        const char *word = word_of(state, queue);
        for (int w = 0; w < WORDS; w++)
            counts[w] += strcmp(words[w], word) == 0;
        *samples += state->samples;
        if (rc == MB_OK && strcmp(word, "done") != 0)
            printf("shard %-6ld %-12s %ld samples stored%s\n", number, word, state->samples,
                   state->failed ? ", some failed" : "");
    }
    return rc;
}

static int show_status(cluster_job *job, mb_error *err)
{
    long counts[WORDS] = {0}, samples = 0;
    int rc = read_job(job, err);
    if (rc != MB_OK)
        return rc;
    shard_state *states = calloc((size_t)(job->last - job->first + 1), sizeof *states);
    if (!states)
        return mb_no_memory(err, "the shards");
    bool queue = read_queue(job, states);
    rc = show_shards(job, states, queue, counts, &samples, err);
    free(states);
    if (rc != MB_OK)
        return rc;
    printf("job %ld, shards %ld to %ld: %ld %s", job->job, job->first, job->last, counts[0], words[0]);
    for (int w = 1; w < WORDS; w++)
        if (counts[w])
            printf(", %ld %s", counts[w], words[w]);
    printf("; %ld samples stored%s\n", samples, queue ? "" : "; the queue could not be asked");
    return MB_OK;
}

int mb_command_slurm(const mb_cli *cli)
{
    mb_error err = {0};
    cluster_job job = {.cli = cli};
    int rc = read_config(&job, &err);
    if (rc == MB_OK)
        rc = cli->status ? show_status(&job, &err) : write_and_submit(&job, &err);
    job_free(&job);
    return rc == MB_OK ? 0 : mb_exit_fail(rc, err.text);
}
