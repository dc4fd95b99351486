#!/usr/bin/env bash
# DuckDB 1.5.5, extension sqlite_scanner: a view of an attached SQLite file is not always SQLite's answer. Where DuckDB can
# bind the view's text it computes it by its own rules, so the numbers of one and the same view differ, without a message:
# CAST(2.7 AS INTEGER) is 2 in SQLite and 3 in DuckDB, printf('%g', NULL) is "0" and NULL, 5 / 2 is 2 and 2.5.
# Where it cannot bind the text it sends SQLite its own spelling of it, with count_star() for count(*) and parentheses
# around the parts of a UNION ALL, which SQLite refuses.
# sqlite_query() gives SQLite's answer.
#
# Run without this repository. Exit status 0: DuckDB still behaves so; 1: it does not; 2: it could not be installed.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install duckdb==1.5.5 duckdb-extension-sqlite-scanner==1.5.5 >/dev/null 2>&1 ||
    { echo "duckdb 1.5.5 cannot be installed"; exit 2; }
"$folder/venv/bin/python" - "$folder" <<'PY'
import glob, sqlite3, sys
import duckdb

folder = sys.argv[1]
lite = sqlite3.connect(f"{folder}/a.db")
lite.executescript("""
CREATE TABLE t (a INTEGER, x REAL);
INSERT INTO t VALUES (5, 2.7), (7, 2.7);
CREATE VIEW number AS SELECT CAST(x AS INTEGER) AS cast_x, a / 2 AS half, printf('%g', nullif(a, a)) AS text FROM t WHERE a = 5;
CREATE VIEW bare AS SELECT a, count(*) AS n FROM t GROUP BY x;
CREATE VIEW joined AS SELECT a, count(1) AS n FROM t GROUP BY x UNION ALL SELECT a, 1 FROM t;
""")
lite.commit()
extension = glob.glob(f"{folder}/venv/**/sqlite_scanner.duckdb_extension", recursive=True)[0]
duck = duckdb.connect(config={"allow_unsigned_extensions": "true"})
duck.execute(f"LOAD '{extension}'")
duck.execute(f"ATTACH '{folder}/a.db' AS r (TYPE sqlite)")
print("sqlite", sqlite3.sqlite_version, "duckdb", duckdb.__version__)
own = lite.execute("SELECT * FROM number").fetchone()
view = duck.execute("SELECT * FROM r.number").fetchone()
sent = duck.execute("SELECT * FROM sqlite_query('r', 'SELECT * FROM number')").fetchone()
print("view number: sqlite", own, "duckdb", view, "sqlite_query", sent)
same = own == (2, 2, "0") and view[0] == 3 and view[1] == 2.5 and view[2] is None and [str(v) for v in sent] == ["2", "2", "0"]
for name in ("bare", "joined"):
    print(f"view {name}: sqlite", lite.execute(f"SELECT * FROM {name}").fetchall())
    try:
        print("  duckdb", duck.execute(f"SELECT * FROM r.{name}").fetchall())
        same = False
    except duckdb.Error as error:
        print("  duckdb refuses:", str(error)[:160].replace("\n", " "))
sys.exit(0 if same else 1)
PY
