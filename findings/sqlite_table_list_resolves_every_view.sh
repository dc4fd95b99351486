#!/usr/bin/env bash
# SQLite 3.46.1: SELECT ... FROM pragma_table_list WHERE name = 't' computes the columns of every view of the database, whatever
# the WHERE asks for, because the list has a column ncol. Resolving a view resolves the views it is built on once for each
# place they stand at, so a chain of views that each join the one before twice takes time that doubles with every view.
# sqlite_master, which lists the same names, resolves none. A program that only asks whether a table is there should ask
# sqlite_master, or PRAGMA table_info of that table.
#
# Run without this repository. Exit status 0: SQLite still behaves so; 1: it does not; 2: apsw could not be installed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip -q install apsw==3.46.1.0 >/dev/null 2>&1 || { echo "apsw 3.46.1.0 cannot be installed"; exit 2; }
cat > ask.py <<'PY'
import apsw, sys, time

def ask(views):
    db = apsw.Connection(":memory:")
    db.execute("CREATE TABLE t(a, b)")
    db.execute("CREATE VIEW v0 AS SELECT a, b FROM t")
    for i in range(1, views):
        db.execute(f"CREATE VIEW v{i} AS SELECT x.a, y.b FROM v{i-1} x JOIN v{i-1} y ON x.a = y.a")
    def timed(sql):
        start = time.process_time()
        rows = list(db.execute(sql))
        return time.process_time() - start, rows
    listed, a = timed("SELECT name FROM pragma_table_list WHERE name = 't' AND type = 'table'")
    master, b = timed("SELECT name FROM sqlite_master WHERE name = 't' AND type = 'table'")
    assert a == b == [("t",)]
    print(f"SQLite {apsw.sqlitelibversion()}, {views} views: pragma_table_list {listed * 1e3:.2f} ms, "
          f"sqlite_master {master * 1e3:.2f} ms")
    return listed, master

short, _ = ask(7)
long, master = ask(11)
sys.exit(0 if long > 4 * short and long > 20 * master else 1)
PY
venv/bin/python ask.py
