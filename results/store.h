/*
 * store.h - inside of the store, for the files of this room (and its tests). Everybody else uses results.h.
 *
 * A store is one SQLite connection, a cache of prepared statements, and in write mode a lock on the file that
 * lives as long as the store: SQLite locks only while a transaction runs, this lock tells two programs apart at
 * once.
 */
#ifndef MB_RESULTS_STORE_H
#define MB_RESULTS_STORE_H

#include <sqlite3.h>

#include "results/results.h"

#define STORE_APPLICATION_ID 0x6d61736b /* "mask" */
#define STORE_VERSION 6                 /* PRAGMA user_version; the tables of schema.sql */
#define STORE_VERSION_OLDEST 2          /* brought to it by one migrate_N.sql a version; every row stays */
#define STORE_STATEMENTS 128

struct mb_store {
    sqlite3 *db;
    char *path; /* as the user named it */
    char *file; /* the same from the root */
    mb_store_mode mode;
    int64_t build;  /* row of the code that computes what is stored from here on; 0: not told */
    int lock_fd;    /* -1: none (read mode) */
    bool made;      /* the file did not exist before */
    bool opened;    /* for writing, with success */
    bool blank;     /* no table and no mark of any program: somebody was stopped before the first commit */
    bool copied;    /* the connection is a copy in memory already */
    bool moved;     /* the name leads to another file by now; the rows are saved */
    bool logs;      /* the file was given a write-ahead log */
    bool own_views; /* read through temporary views: the file's are of another program */
    bool rows;      /* opened for its tables alone: views are not looked at */
    bool gave_up;   /* waiting for another program was ended by `wait` */
    bool (*wait)(void *self, int seconds);
    void *wait_self;
    struct merging *absorbing; /* of mb_store_absorb(), with its prepared statements */
    /* Prepared statements by the address of their text, which is a literal. */
    const char *texts[STORE_STATEMENTS];
    sqlite3_stmt *statements[STORE_STATEMENTS];
    size_t statement_count;
};

/* baseline.c: a line for each GPU of a run that has speed-ups, each ended by a line feed. */
int baseline_lines(mb_store *store, int64_t run_id, mb_text *lines, mb_error *err);
/* The sentence for SQLite's result: what was being done, the file, what to do. Returns MB_E_*. */
int store_error(mb_store *store, int rc, const char *doing, mb_error *err);
/* A prepared statement, reset and without values; sql must be a literal. NULL: err is filled. */
sqlite3_stmt *store_statement(mb_store *store, const char *sql, mb_error *err);
/* Binds values in order: t text (NULL is NULL), b bytes (pointer and size_t; NULL is NULL), i int64_t, j int, d
 * double (NAN is NULL), k int64_t (negative is NULL). Texts must live until the statement is reset. */
void store_bind(sqlite3_stmt *statement, const char *format, ...);
/* Steps to the end and resets. */
int store_step(mb_store *store, sqlite3_stmt *statement, const char *doing, mb_error *err);
/* First column of the first row as integer; *found false: no row. Resets. */
int store_step_integer(mb_store *store, sqlite3_stmt *statement, int64_t *value, bool *found, const char *doing,
                       mb_error *err);
int store_exec(mb_store *store, const char *sql, const char *doing, mb_error *err);
/* A write transaction; end commits when rc is MB_OK and rolls back otherwise, and returns the final code. */
int store_begin(mb_store *store, mb_error *err);
int store_end(mb_store *store, int rc, mb_error *err);
/* From here on a busy file is waited for, see mb_store_on_wait(). */
void store_wait(mb_store *store);
void store_unlock(mb_store *store);
/* Refuses a write to a store opened for reading. */
int store_writable(mb_store *store, mb_error *err);

/* ---- store_open.c, absorb.c ---- */
/* The tables of a new file, without views. */
int store_create_tables(mb_store *store, mb_error *err);
void store_absorb_end(mb_store *store);
/* For reading the tables: a thousand files are opened sooner without a look at their views. */
int store_open_rows(mb_store **store, const char *path, mb_error *err);

/* ---- store_copy.c ---- */
/* Copies a database and its log; refuses a pair that somebody is writing. */
int store_copy_files(const char *from, const char *to, mb_error *err);
/* Removes a database with all that SQLite puts beside it. */
void store_remove_files(const char *file);

/* ---- record.c ---- */
/* What was recorded of a sample, inside of its transaction. prompt: row of its prompt. */
int store_record(mb_store *store, int64_t sample, int64_t prompt, const mb_record_row *record, mb_error *err);

/* ---- frozen.c ---- */
/* Reads the file through this program's views: temporary ones, in front of the file's. */
int store_use_own_views(mb_store *store, mb_error *err);
/* From here on the views show the run as it is now (-1: all runs), the costly ones computed once. Nothing may be
 * written until store_thaw(), which returns rc, or its own code where rc is MB_OK. */
int store_freeze(mb_store *store, int64_t run, mb_error *err);
int store_thaw(mb_store *store, int rc, mb_error *err);

/* A label as the name of a file or folder: what a file system or a shell could stumble over becomes "_". */
void store_file_name(mb_text *out, const char *label);
/* MB_E_INPUT where a path was seen before: two labels differ in what a file name does not keep. */
int store_path_once(mb_text *seen, const char *path, mb_error *err);

/* ---- statistics.c ---- */
typedef struct interval {
    double mean, low, high;
} interval;
/* Mean of per-group means with a 95 % bootstrap interval, items drawn within their group (groups drawn too where
 * one has a single item). values and groups [n], groups ascending from 0. Every call with groups of the same sizes
 * has the same draws, so that equal data give equal intervals. Fewer than two items: low = high = NAN.
 */
interval paired_interval(const double *values, const int32_t *groups, size_t n);
/* Ratio of means over groups of (sum of a in the group) / (sum of b in the group), with the interval of the same
 * draws. Groups whose b sums to 0 are left out. */
interval paired_ratio(const double *a, const double *b, const int32_t *groups, size_t n);
/* Median of n times (sorted in place) with the 95 % interval of order statistics; below six values no interval. */
interval median_interval(double *values, size_t n);
/* One-sided sign test: probability of at least `wins` wins among wins + losses fair coins. */
double sign_test(int64_t wins, int64_t losses);
/* Two-sided p of "these differences are symmetric around 0", groups weighted alike. Below SIGN_TEST_BELOW
 * differences that are not 0 the exact sign test, else the sign-flip test of the mean of group means (normal
 * limit). 1 where nothing differs. */
double paired_p(const double *values, const int32_t *groups, size_t n);
#define SIGN_TEST_BELOW 20
/* Holm's correction: p [n] is replaced by the adjusted values; NAN stays and does not count. */
void holm_adjust(double *p, size_t n);

/* ---- table.c: the one printer ---- */
typedef struct table_cell {
    char *text;
    bool number;
} table_cell;
typedef struct table {
    size_t columns;
    char **names;      /* [columns] */
    table_cell *cells; /* [row][columns] */
    size_t cell_count, capacity;
    bool failed; /* out of memory: not to be rendered */
} table;
void table_init(table *t, size_t columns, const char *const *names);
/* Appends a cell, row by row. text NULL: no value. number: right-aligned. */
void table_put(table *t, const char *text, bool number);
void table_printf(table *t, bool number, const char *format, ...) MB_PRINTF(3, 4);
/* wrap_head: long column names may take several lines (terminal only). */
void table_render(const table *t, mb_table_format format, int max_width, bool wrap_head, mb_text *out);
size_t table_width(const table *t, size_t column, bool wrap_head);
void table_free(table *t);
/* Columns a text takes on a terminal. */
size_t text_columns(const char *text);

#endif
