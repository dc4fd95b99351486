/*
 * run.c - one run from the config to the plots, and what it leaves behind when something stops it: every finished
 * sample is stored, so the same command continues.
 */
#include "driver/run.h"

#include "driver/devices.h"
#include "driver/dry_run.h"
#include "driver/open.h"
#include "driver/os/os.h"
#include "driver/pass/pass.h"
#include "driver/pass/plan.h"
#include "driver/setup.h"
#include "driver/worker/isolate.h"

#include <stdio.h>
#include <string.h>

static double seconds_since(uint64_t start)
{
    return (double)(mb_clock_ns() - start) * 1e-9;
}

/* Another program holds the database: a run of days waits for it, and says so. */
static bool wait_for_store(void *self, int seconds)
{
    mb_run *run = self;
    if (seconds == 10 || (seconds && seconds % 60 == 0))
        mb_progress_note(&run->progress, "%s: another program holds it; waiting (%d s so far)",
                         run->config->results, seconds);
    return !mb_interrupted;
}

/* The database that the run writes. A plan looks at a copy: it shows what is stored and changes nothing. */
static int open_store(mb_run *run, mb_error *err)
{
    const char *path = run->config->results;
    bool plan = run->flags.dry_run;
    if (plan && (run->flags.fresh || !mb_file_exists(path)))
        return MB_OK;
    int rc = mb_store_open(&run->store, path, plan ? MB_STORE_SCRATCH : MB_STORE_WRITE, err);
    if (rc == MB_OK && !plan)
        mb_store_on_wait(run->store, wait_for_store, run);
    return rc;
}

/* A pass that measures times and has no case would measure nothing: it is refused. */
static int check_times(const mb_run_config *config, mb_error *err)
{
    const mb_latency_spec *latency = &config->latency;
    int64_t cases = 0, parts = (int64_t)(latency->breakdown_contexts.count * latency->batches.count);
    for (size_t i = 0; i < latency->contexts.count; i++)
        cases += (int64_t)(latency->steps.count *
                           (latency->batches.count +
                            (latency->largest_batch && latency->contexts.values[i] >= latency->largest_from)));
    if ((config->passes & MB_RUN_LATENCY) && cases == 0)
        return mb_fail(
            err, MB_E_INPUT,
            "the pass latency would measure nothing: latency.contexts, latency.batches and latency.steps "
            "need a value each");
    if ((config->passes & MB_RUN_BREAKDOWN) && parts == 0)
        return mb_fail(
            err, MB_E_INPUT,
            "the pass breakdown would measure nothing: latency.breakdown_contexts and latency.batches need a "
            "value each");
    return MB_OK;
}

/* Opens every task once before any work: a missing file ends the run here, and the sizes feed the progress bar. */
static int count_work(mb_run *run, double *seconds, mb_error *err)
{
    const mb_run_config *config = run->config;
    *seconds = mb_plan_cases(run, NULL, NULL);
    double share = run->flags.shard.last > 0 ? 1.0 / run->flags.shard.last : 1;
    for (size_t i = 0; i < config->task_count; i++) {
        int64_t samples = 0, id = 0, arms = (int64_t)run->arm_count;
        int rc = mb_run_dataset(run, &config->tasks[i], &samples, &id, err);
        if (rc != MB_OK)
            return rc;
        if (samples < 0) /* not known without reading */
            samples = config->tasks[i].limit ? config->tasks[i].limit : 0;
        int64_t recalls = config->recall_limit && config->recall_limit < samples ? config->recall_limit : samples;
        int decodes = !!(config->passes & MB_RUN_QUALITY) + !!(config->passes & MB_RUN_FORCED);
        int64_t units = samples * arms * decodes + (config->passes & MB_RUN_RECALL ? recalls : 0);
        *seconds += share * (double)units * mb_plan_sample_seconds(run, &config->tasks[i]);
    }
    return check_times(config, err);
}

static int run_passes(mb_run *run, mb_error *err)
{
    const mb_run_config *config = run->config;
    int rc = MB_OK;
    mb_devices_begin(run);
    if (config->passes & MB_RUN_SAMPLES)
        rc = mb_run_tasks(run, err);
    if (rc == MB_OK)
        rc = mb_devices_finish(run, err);
    mb_devices_close(run);
    if (rc == MB_OK && (config->passes & MB_RUN_TIMES)) {
        uint64_t start = mb_clock_ns();
        /* The cache of the quality pass makes room: a latency case plans with the whole device. Nobody else
         * computes on it while we measure. */
        mb_isolate_end(run);
        for (size_t i = run->arm_count; i-- > 0;) {
            mb_attender_close(run->arms[i].attender);
            run->arms[i].attender = NULL;
        }
        mb_session_close(run->session);
        run->session = NULL;
        rc = config->passes & MB_RUN_LATENCY ? mb_latency_pass(run, err) : MB_OK;
        if (rc == MB_OK && (config->passes & MB_RUN_BREAKDOWN) && !run->flags.profile)
            rc = mb_breakdown_pass(run, err);
        run->seconds_latency = seconds_since(start);
    }
    return rc;
}

/* Gates, table and figures. *red receives whether a gate failed. */
static int finish(mb_run *run, bool *red, mb_error *err)
{
    mb_text report = {0};
    char id[32];
    int drawn = 0;
    uint64_t start = mb_clock_ns();
    snprintf(id, sizeof id, "%lld", (long long)run->run_id);
    int rc = mb_gates_run(run->store, run->run_id, err);
    if (rc == MB_OK)
        rc = mb_report(run->store, id, &(mb_report_options){.max_width = mb_terminal_width()}, &report, err);
    if (rc == MB_OK && !run->flags.quiet && report.data)
        fputs(report.data, stdout);
    fflush(stdout); /* progress goes to standard error: keep the two in order */
    mb_text_free(&report);
    if (rc == MB_OK) {
        char sql[128]; /* of this run: others in the file have had their own exit code */
        snprintf(sql, sizeof sql, "SELECT name FROM v_gates WHERE run_id = %s AND verdict = 'fail' LIMIT 1", id);
        rc = mb_table_query(run->store, sql, MB_TABLE_CSV, 0, &report, err);
        *red = rc == MB_OK && report.data && strstr(report.data, "\n") && strchr(report.data, '\n')[1] != '\0';
        mb_text_free(&report);
    }
    if (rc == MB_OK && *run->config->plots) {
        mb_error reason = {0};
        int plotted = mb_plot_all(run->store, id, run->config->plots, &drawn, &reason);
        if (plotted == MB_OK)
            mb_progress_note(&run->progress, "%d figures in %s", drawn, run->config->plots);
        else /* the numbers are safe: missing figures are no reason to fail the run */
            mb_progress_note(&run->progress, "no figures: %s", reason.text);
    }
    run->seconds_report = seconds_since(start);
    return rc;
}

static void print_stages(const mb_run *run)
{
    if (run->flags.quiet)
        return;
    printf("\nstages     set-up %.1f s, quality %.1f s, recall %.1f s, latency %.1f s, report and plots %.1f s; "
           "peak memory %.0f MiB\n",
           run->seconds_setup, run->seconds_quality, run->seconds_recall, run->seconds_latency,
           run->seconds_report, (double)mb_peak_memory() / 0x1p20);
    if (run->reused)
        printf("reused     %lld stored rows of build %.8s; %lld samples computed now\n", (long long)run->reused,
               mb_code_hash("program"), (long long)mb_store_session_samples(run->store, run->run_id));
    printf("stored in  %s  (sqlite3 %s 'SELECT * FROM v_accuracy')\n", run->config->results, run->config->results);
}

/* Dimensions, then the database: both refuse before anything large is opened. */
static int inspect(mb_run *run, mb_error *err)
{
    int rc = mb_run_inspect(run, err);
    return rc == MB_OK ? open_store(run, err) : rc;
}

static int dry_run(mb_run *run, const char *command, mb_error *err)
{
    int rc = inspect(run, err);
    if (rc == MB_OK)
        rc = mb_run_open(run, err);
    if (rc == MB_OK && run->store)
        rc = mb_run_register(run, command, err);
    return rc == MB_OK ? mb_run_print_plan(run, err) : rc;
}

/* Everything before the first sample; *seconds: of the progress bar. */
static int begin(mb_run *run, const char *command, double *seconds, mb_error *err)
{
    int rc = inspect(run, err);
    if (rc == MB_OK && (run->config->passes & MB_RUN_TIMES))
        rc = mb_isolate_rehearse(run, err);
    if (rc == MB_OK)
        rc = mb_run_open(run, err);
    if (rc == MB_OK)
        rc = count_work(run, seconds, err);
    if (rc == MB_OK && run->flags.fresh) /* nothing can be refused any more, and what goes is a store of ours */
        rc = mb_store_renew(run->store, err);
    return rc == MB_OK ? mb_run_register(run, command, err) : rc;
}

/* How the session ended, into the store. What went wrong before counts more than what goes wrong here. */
static int end(mb_run *run, int rc, uint64_t start, mb_error *err)
{
    mb_error own = {0};
    const char *state = rc == MB_OK ? "done" : rc == MB_E_STOP ? "interrupted" : "failed";
    if (!run->run_id)
        return rc;
    int stored = mb_store_run_end(run->store, run->run_id, state, seconds_since(start), mb_peak_memory(), &own);
    return rc == MB_OK && stored != MB_OK ? mb_fail(err, stored, "%s", own.text) : rc;
}

static int whole_run(mb_run *run, const char *command, bool *red, mb_error *err)
{
    double units = 0; /* estimated seconds */
    uint64_t start = mb_clock_ns();
    int rc = begin(run, command, &units, err);
    run->seconds_setup = seconds_since(start);
    if (rc == MB_OK) {
        mb_progress_begin(&run->progress, run->flags.quiet, units);
        rc = run_passes(run, err);
        mb_progress_end(&run->progress);
    }
    rc = end(run, rc, start, err);
    if (rc == MB_OK && run->flags.shard.last == 0) /* of a part there is nothing to say: merging does */
        rc = finish(run, red, err);
    if (rc == MB_OK)
        print_stages(run);
    return rc;
}

static int close_all(mb_run *run, int rc, mb_error *err)
{
    mb_error own = {0};
    mb_devices_close(run);
    mb_run_close(run);
    int closed = run->store ? mb_store_close(run->store, &own) : MB_OK;
    return rc == MB_OK && closed != MB_OK ? mb_fail(err, closed, "%s", own.text) : rc;
}

/* What of the passes a shard computes: samples are dealt, times are not (two machines' times make no ratio). */
static int choose_part(mb_run *run, mb_error *err)
{
    mb_shard *shard = &run->flags.shard;
    uint32_t *passes = &run->config->passes, mine = shard->number ? MB_RUN_SAMPLES : MB_RUN_TIMES;
    if (shard->last == 0)
        return MB_OK;
    shard->first = *passes & MB_RUN_TIMES ? 0 : 1;
    if (!(*passes & mine))
        return mb_fail(err, MB_E_INPUT,
                       shard->number ? "shard %d of %d has no samples: the config's passes are timed, and shard 0 "
                                       "computes those"
                                     : "shard %d of %d is the timed passes, and the config has none: shards begin "
                                       "at 1",
                       shard->number, shard->last);
    *passes &= mine;
    return MB_OK;
}

int mb_run_main(mb_run_config *config, const mb_run_flags *flags, const char *command)
{
    mb_run run = {.config = config, .flags = *flags};
    mb_error err = {0};
    bool red = false;
    mb_progress_begin(&run.progress, flags->quiet, 0);
    int rc = choose_part(&run, &err);
    if (rc == MB_OK)
        rc = mb_devices_choose(&run, &err);
    if (rc == MB_OK)
        rc = flags->dry_run ? dry_run(&run, command, &err) : whole_run(&run, command, &red, &err);
    rc = close_all(&run, rc, &err);
    if (rc == MB_E_STOP) {
        mb_print(stderr,
                 "interrupted: everything finished so far is in %s; the same command continues:", config->results);
        mb_print(stderr, "  %s", command);
        return MB_EXIT_INTERRUPTED;
    }
    if (rc != MB_OK)
        return mb_exit_fail(rc, err.text);
    if (run.failed_samples) {
        mb_say("%lld samples failed; see the view v_failures", (long long)run.failed_samples);
        return MB_EXIT_SAMPLES;
    }
    return red ? MB_EXIT_GATE : MB_EXIT_DONE;
}
