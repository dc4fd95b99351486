/*
 * test_store_file.c - the store and its file: one writer whatever name it comes by, a name that goes away during a
 * run, a log in a folder that may not be written, somebody who holds the file, views that somebody changed.
 */
#include "tests/results/small_store.h"

#include "results/store.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

typedef struct scratch {
    char folder[64], path[128], other[128], saved[192];
} scratch;

static scratch make_scratch(const char *name)
{
    scratch s = {.folder = "/tmp/mb-store-XXXXXX"};
    assert_non_null(mkdtemp(s.folder));
    snprintf(s.path, sizeof s.path, "%s/%s", s.folder, name);
    snprintf(s.other, sizeof s.other, "%s/other.db", s.folder);
    snprintf(s.saved, sizeof s.saved, "%s.saved-%d", s.path, (int)getpid());
    return s;
}

static void remove_scratch(const scratch *s)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", s->folder);
    assert_int_equal(system(command), 0);
}

/* In a process of its own, as a second program would: the code, and whether the sentence has the words. */
static void expect_in_child(const char *path, mb_store_mode mode, int code, const char *words)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        mb_error err = {0};
        mb_store *store = NULL;
        int rc = mb_store_open(&store, path, mode, &err);
        if (rc != code || (words && !strstr(err.text, words)))
            fprintf(stderr, "%s: %d %s\n", path, rc, err.text);
        _exit(rc != code ? 1 : words && !strstr(err.text, words) ? 2 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void locks_the_file_not_the_name(void **state)
{
    (void)state;
    scratch t = make_scratch("a.db");
    small_store s = {0};
    char soft[160], hard[160];
    snprintf(soft, sizeof soft, "%s/soft.db", t.folder);
    snprintf(hard, sizeof hard, "%s/hard.db", t.folder);
    snprintf(s.path, sizeof s.path, "%s", t.path);
    small_open(&s, 7);
    assert_int_equal(symlink(t.path, soft), 0);
    assert_int_equal(link(t.path, hard), 0);
    expect_in_child(t.path, MB_STORE_WRITE, MB_E_INPUT, "another program is writing");
    expect_in_child(soft, MB_STORE_WRITE, MB_E_INPUT, "another program is writing");
    expect_in_child(hard, MB_STORE_WRITE, MB_E_INPUT, "another program is writing");
    expect_in_child(soft, MB_STORE_READ, MB_OK, NULL);
    small_close(&s);
    unlink(hard);
    expect_in_child(soft, MB_STORE_WRITE, MB_OK, NULL); /* a symlink is a way to a store like any other */
    remove_scratch(&t);
}

/* What SQLite would take for a database in memory or for a URI is refused, or is the file of that name. */
static void takes_names_literally(void **state)
{
    (void)state;
    scratch t = make_scratch("a.db?mode=memory&x=%41#f");
    small_store s = {0};
    mb_store *store = NULL;
    mb_error err = {0};
    assert_int_equal(mb_store_open(&store, ":memory:", MB_STORE_WRITE, &err), MB_E_INPUT);
    assert_non_null(strstr(err.text, "--db"));
    assert_int_equal(mb_store_open(&store, "", MB_STORE_WRITE, &err), MB_E_INPUT);
    assert_int_equal(mb_store_open(&store, "/dev/null", MB_STORE_WRITE, &err), MB_E_INPUT);
    snprintf(s.path, sizeof s.path, "%s", t.path);
    small_open(&s, 7);
    small_close(&s);
    assert_true(mb_file_exists(t.path));
    char *before = getcwd(NULL, 0);
    assert_int_equal(chdir(t.folder), 0);
    OK(mb_store_open(&store, "file:uri.db?mode=memory", MB_STORE_WRITE, &err));
    OK(mb_store_close(store, &err));
    assert_true(mb_file_exists("file:uri.db?mode=memory"));
    assert_int_equal(chdir(before), 0);
    free(before);
    remove_scratch(&t);
}

enum { REMOVED, RENAMED, REPLACED, FOLDER_RENAMED, WAYS };

static void lose(const scratch *t, int how)
{
    char away[96];
    if (how == REMOVED)
        assert_int_equal(unlink(t->path), 0);
    if (how == RENAMED)
        assert_int_equal(rename(t->path, t->other), 0);
    if (how == REPLACED) {
        mb_error err = {0};
        OK(mb_file_write(t->path, "somebody's", 10, &err));
    }
    if (how == FOLDER_RENAMED) {
        snprintf(away, sizeof away, "%s-away", t->folder);
        assert_int_equal(rename(t->folder, away), 0);
    }
}

static void says_that_the_name_is_gone(void **state)
{
    (void)state;
    for (int how = 0; how < WAYS; how++) {
        scratch t = make_scratch("a.db");
        small_store s = {0}, saved = {0};
        snprintf(s.path, sizeof s.path, "%s", t.path);
        small_open(&s, 7);
        int64_t cell = small_cell(&s, small_config(&s, "m", 0, 64), "quality");
        small_sample(&s, cell, "k1", 1);
        lose(&t, how);
        mb_sample_row row = small_row(cell, "k2", 1);
        assert_int_equal(mb_store_sample(s.store, &row, &s.err), MB_E_SYSTEM);
        assert_non_null(strstr(s.err.text, t.path));
        assert_non_null(strstr(s.err.text, t.saved));
        assert_int_equal(mb_store_run_end(s.store, s.run, "failed", 1, 1, &s.err), MB_E_SYSTEM);
        OK(mb_store_close(s.store, &s.err));
        OK(mb_store_open(&saved.store, t.saved, MB_STORE_WRITE, &s.err));
        assert_string_equal(small_query(saved.store, "SELECT item FROM v_samples ORDER BY item"), "k1\nk2\n");
        OK(mb_store_close(saved.store, &s.err));
        if (how == REPLACED) {
            char *text = NULL;
            size_t size = 0;
            OK(mb_file_read(t.path, 100, &text, &size, &s.err));
            assert_string_equal(text, "somebody's");
            free(text);
        }
        remove_scratch(&t);
    }
    assert_int_equal(system("rm -rf /tmp/mb-store-*-away"), 0);
}

/* After the last write nothing is stored any more; closing notices. */
static void notices_when_it_closes(void **state)
{
    (void)state;
    scratch t = make_scratch("a.db");
    small_store s = {0};
    snprintf(s.path, sizeof s.path, "%s", t.path);
    small_open(&s, 7);
    lose(&t, REMOVED);
    assert_int_equal(mb_store_close(s.store, &s.err), MB_E_SYSTEM);
    assert_non_null(strstr(s.err.text, t.saved));
    remove_scratch(&t);
}

static void renews_under_its_lock(void **state)
{
    (void)state;
    scratch t = make_scratch("a.db");
    small_store s = {0};
    struct stat before, after;
    snprintf(s.path, sizeof s.path, "%s", t.path);
    small_open(&s, 7);
    small_sample(&s, small_cell(&s, small_config(&s, "m", 0, 64), "quality"), "k1", 1);
    OK(stat(t.path, &before));
    OK(mb_store_renew(s.store, &s.err));
    OK(stat(t.path, &after));
    assert_int_equal(before.st_ino, after.st_ino); /* one file all along, so one lock */
    expect_in_child(t.path, MB_STORE_WRITE, MB_E_INPUT, "another program is writing");
    assert_string_equal(
        small_query(s.store, "SELECT (SELECT count(*) FROM v_samples), (SELECT count(*) FROM run)"), "0,0\n");
    small_close(&s);
    small_open(&s, 7);
    small_close(&s);
    remove_scratch(&t);
}

/* A run was killed with rows in its log, and the folder may only be read: they are read as well, from a file whose
 * name would be another file's in a URI. As a user who may not write there: root may write everywhere. */
static void reads_the_log_of_a_killed_run(void **state)
{
    (void)state;
    scratch t = make_scratch("a%41?b.db");
    char neighbour[128];
    small_store s = {0};
    snprintf(s.path, sizeof s.path, "%s", t.path);
    snprintf(neighbour, sizeof neighbour, "%s/aA", t.folder);
    small_open(&s, 7);
    small_close(&s);
    for (int kind = 0; kind < 2; kind++) {
        const char *path = kind ? neighbour : t.path;
        pid_t writer = fork();
        if (writer == 0) {
            small_store c = {0};
            snprintf(c.path, sizeof c.path, "%s", path);
            small_open(&c, 7);
            int64_t cell = small_cell(&c, small_config(&c, "m", 0, 64), "quality");
            for (int i = 0; i < (kind ? 2 : 5); i++)
                small_sample(&c, cell, (const char[]){(char)('a' + i), '\0'}, 1);
            kill(getpid(), SIGKILL);
        }
        int status = 0;
        waitpid(writer, &status, 0);
        assert_true(WIFSIGNALED(status));
    }
    char shm[160];
    snprintf(shm, sizeof shm, "%s-shm", t.path);
    unlink(shm); /* as in a copy of the folder */
    chmod(t.folder, 0555);
    pid_t reader = fork();
    if (reader == 0) {
        mb_error err = {0};
        mb_store *store = NULL;
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(9);
        if (mb_store_open(&store, t.path, MB_STORE_READ, &err) != MB_OK) {
            fprintf(stderr, "%s\n", err.text);
            _exit(1);
        }
        if (strcmp(small_query(store, "SELECT count(*) FROM v_samples"), "5\n") != 0)
            _exit(2);
        mb_store_close(store, NULL);
        _exit(0);
    }
    int status = 0;
    waitpid(reader, &status, 0);
    chmod(t.folder, 0755);
    remove_scratch(&t);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 9)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* A file that was closed in order says nothing of a log: any program opens it where nothing may be written. */
static void opens_anywhere_when_closed(void **state)
{
    (void)state;
    scratch t = make_scratch("a.db");
    small_store s = {0};
    unsigned char head[20] = {0};
    snprintf(s.path, sizeof s.path, "%s", t.path);
    for (int start = 0; start < 2; start++) { /* a new file, and one that is continued */
        small_open(&s, 7);
        small_sample(&s, small_cell(&s, small_config(&s, "m", 0, 64), "quality"), start ? "k2" : "k1", 1);
        small_close(&s);
    }
    int fd = open(t.path, O_RDONLY);
    assert_int_equal(read(fd, head, sizeof head), sizeof head);
    close(fd);
    assert_int_equal(head[18], 1); /* file format: 2 is a write-ahead log */
    assert_int_equal(head[19], 1);
    chmod(t.folder, 0555);
    pid_t reader = fork();
    if (reader == 0) {
        sqlite3 *db = NULL;
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(9);
        _exit(sqlite3_open_v2(t.path, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
              sqlite3_exec(db, "SELECT * FROM v_accuracy", NULL, NULL, NULL) != SQLITE_OK);
    }
    int status = 0;
    waitpid(reader, &status, 0);
    chmod(t.folder, 0755);
    remove_scratch(&t);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 9)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

typedef struct patience {
    int asked, most;
} patience;

static bool wait_some(void *self, int seconds)
{
    patience *p = self;
    p->asked++;
    return seconds < p->most;
}

/* Another client holds the file for longer than a moment: the write waits, asks, and then succeeds. */
static void waits_for_another_writer(void **state)
{
    (void)state;
    scratch t = make_scratch("a.db");
    small_store s = {0};
    patience p = {0, 60};
    int pipes[2];
    char byte = 0;
    snprintf(s.path, sizeof s.path, "%s", t.path);
    small_open(&s, 7);
    int64_t cell = small_cell(&s, small_config(&s, "m", 0, 64), "quality");
    mb_store_on_wait(s.store, wait_some, &p);
    for (int hold = 0; hold < 2; hold++) {
        assert_int_equal(pipe(pipes), 0);
        pid_t holder = fork();
        if (holder == 0) {
            sqlite3 *db;
            close(pipes[0]);
            if (sqlite3_open(t.path, &db) != SQLITE_OK ||
                sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK || write(pipes[1], "x", 1) != 1)
                _exit(1);
            usleep(hold ? 5000000 : 1500000);
            _exit(0);
        }
        close(pipes[1]);
        assert_int_equal(read(pipes[0], &byte, 1), 1);
        close(pipes[0]);
        mb_sample_row row = small_row(cell, hold ? "k2" : "k1", 1);
        int rc = mb_store_sample(s.store, &row, &s.err);
        kill(holder, SIGKILL);
        waitpid(holder, NULL, 0);
        assert_int_equal(rc, hold ? MB_E_STOP : MB_OK);
        assert_true(p.asked >= 2);
        p = (patience){0, 1}; /* the second time patience ends first */
    }
    assert_string_equal(small_query(s.store, "SELECT item FROM v_samples"), "k1\n");
    small_close(&s);
    remove_scratch(&t);
}

static void repairs_views(void **state)
{
    (void)state;
    static const char *const damages[] = {
        "DROP VIEW v_samples", "DROP VIEW v_samples; CREATE VIEW v_samples AS SELECT 'nothing' AS item",
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_master WHERE type = 'view'"};
    scratch t = make_scratch("a.db");
    small_store s = {0};
    snprintf(s.path, sizeof s.path, "%s", t.path);
    small_open(&s, 7);
    small_sample(&s, small_cell(&s, small_config(&s, "m", 0, 64), "quality"), "k1", 1);
    small_close(&s);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        sqlite3 *db;
        assert_int_equal(sqlite3_open(t.path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, damages[i], NULL, NULL, NULL), SQLITE_OK);
        sqlite3_close(db);
        OK(mb_store_open(&s.store, t.path, MB_STORE_READ, &s.err)); /* read through views of its own */
        assert_string_equal(small_query(s.store, "SELECT item, score FROM v_samples"), "k1,1\n");
        small_close(&s);
        small_open(&s, 7); /* repaired */
        small_close(&s);
        assert_int_equal(sqlite3_open(t.path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, "SELECT item, score FROM v_samples", NULL, NULL, NULL), SQLITE_OK);
        sqlite3_close(db);
    }
    remove_scratch(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(locks_the_file_not_the_name), cmocka_unit_test(takes_names_literally),
        cmocka_unit_test(says_that_the_name_is_gone),  cmocka_unit_test(notices_when_it_closes),
        cmocka_unit_test(renews_under_its_lock),       cmocka_unit_test(reads_the_log_of_a_killed_run),
        cmocka_unit_test(waits_for_another_writer),    cmocka_unit_test(repairs_views),
        cmocka_unit_test(opens_anywhere_when_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
