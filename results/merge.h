/*
 * merge.h - inside of merging: the tables of a store as merging sees them. merge.c walks over the rows,
 * merge_tables.c knows the tables, merge_end.c puts the result in order.
 *
 * What a column means follows from the schema (PRAGMA table_info, foreign_key_list) and from a few words a table
 * in merge_tables.c. A table that is not declared there is refused, so that a new one cannot be forgotten; a new
 * column of a declared one is a value that must agree.
 */
#ifndef MB_RESULTS_MERGE_H
#define MB_RESULTS_MERGE_H

#include "results/store.h"

#define MERGE_COLUMNS 32

typedef enum merge_role {
    MERGE_VALUE, /* two rows of one key must agree in it */
    MERGE_KEY,   /* tells rows apart */
    MERGE_LOOSE, /* a time, a moment, a word: rows may differ in it */
    MERGE_FILL,  /* a value that may be missing (NULL) on one side */
    MERGE_ID     /* number of the row within its file */
} merge_role;

/* What becomes of a stored row when another of the same key comes. */
typedef enum merge_rule {
    MERGE_FIRST,   /* it stays; loose columns may differ */
    MERGE_ENDED,   /* a session: loose columns of the one that has ended */
    MERGE_NEWEST,  /* a cell: loose columns of the newer session */
    MERGE_SUCCESS, /* a sample: a failed one gives way to one that is not */
    MERGE_NONE     /* the table is not merged: each file has its own */
} merge_rule;

typedef struct merge_declaration {
    const char *name;
    const char *key; /* columns; "?" behind one that may be NULL and is indexed as coalesce(column, 0) */
    const char *loose, *fill;
    const char *words; /* columns that name a row to people */
    merge_rule rule;
    const char *owner; /* column: rows of a new owner are new, and are not looked for; or NULL */
} merge_declaration;

typedef struct merge_column {
    char name[32];
    merge_role role;
    bool indexed_null; /* "?" of the declaration */
    int references;    /* index of the table that it points into, or -1 */
} merge_column;

/* What became of a row of the file that is being merged. */
typedef enum merge_fate { MERGE_NEW, MERGE_SAME, MERGE_LEFT_OUT } merge_fate;
typedef struct merge_entry {
    int64_t from, to; /* ids there and here */
    int64_t rows;     /* of a child table, while that is compared */
    merge_fate fate;
} merge_entry;

typedef struct merge_table {
    const merge_declaration *declared;
    merge_column columns[MERGE_COLUMNS];
    size_t column_count;
    int id, owner; /* indices of columns, or -1 */
    bool child;    /* its rows come and go with their owner's: ON DELETE CASCADE */
    char *read, *find, *insert, *update, *count, *forget; /* SQL */
    sqlite3_stmt *finding, *inserting, *updating, *counting, *forgetting;
    merge_entry *entries; /* of the file that is being merged, by `from` ascending; tables with an id */
    size_t entry_count, entry_capacity;
} merge_table;

typedef struct merge_tables {
    merge_table *all; /* in the order of merging: what is pointed to comes first */
    size_t count;
} merge_tables;

typedef struct merging {
    mb_store *out, *source;
    merge_tables tables;
    const volatile int *stop;
    int64_t session; /* not 0: the source is a part of this session, and has none of its own */
    /* the row at hand */
    sqlite3_stmt *row;
    int64_t mapped[MERGE_COLUMNS]; /* of columns that point to another table: the id here */
} merging;

/* ---- merge.c ---- */
/* The result and its tables. out is NULL when the result cannot be opened. */
int merge_open(merging *m, const char *result, mb_error *err);
/* All rows of the files into a transaction that is open. */
int merge_files(merging *m, const char *const *paths, size_t count, mb_text *notes, mb_error *err);
/* All rows of the source into it. */
int merge_rows(merging *m, mb_error *err);

/* ---- absorb.c ---- */
/* The rows that a worker packed into a transaction that is open. */
int absorb_rows(mb_store *store, int64_t run, const char *bytes, size_t size, mb_error *err);

/* ---- merge_tables.c ---- */
/* The declared tables, ended by one without a name. */
extern const merge_declaration merge_declarations[];
/* Reads the tables of the store that is merged into and prepares its statements. */
int merge_tables_open(merge_tables *tables, mb_store *out, mb_error *err);
void merge_tables_close(merge_tables *tables);
/* MB_E_INPUT unless the file has the tables and columns of this version and no other. */
int merge_tables_check(const merge_tables *tables, mb_store *source, mb_error *err);
/* "sample (cell (run quick, ...), item k1)" of a stored row by its id. */
void merge_describe(mb_store *out, const merge_tables *tables, int of, int64_t id, int depth, mb_text *text);
/* Text of a column; "" where it has none, as an empty blob. */
const char *merge_text(sqlite3_stmt *s, int column);
int merge_find_table(const merge_tables *tables, const char *name);
int merge_find_column(const merge_table *of, const char *name);

/* ---- merge_end.c ---- */
/* Sessions in the order of their start, states of the runs, gates; and what there is to say about each run. */
int merge_end(mb_store *out, const merge_tables *tables, mb_text *notes, mb_error *err);

#endif
