#!/usr/bin/env bash
# pandas 3.1.1: an integer column with a missing value, asked for as "Int64", is not always read as integers. The frame says
# Int64, and a value above 2^53 has lost its last bits on a way through float64, without a warning. Which reader does so
# cannot be guessed:
#   read_sql_query: dtype={"a": "Int64"} loses them, dtype_backend="numpy_nullable" and "pyarrow" keep them
#   read_json:      dtype_backend loses them, "pyarrow" too
#   read_csv:       both keep them
# So 64-bit ids and seeds out of SQLite are right with dtype_backend and wrong with the dtype that names them.
#
# Run without this repository. Exit status 0: pandas still behaves so; 1: it does not; 2: it could not be installed.
# Seen on 2026-12-01 with Python 3.11 and numpy 2.4.6: the six lines below end in 992, 993, 992, 992, 993, 993.
set -u
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" -q install pandas==3.1.1 pyarrow==26.0.1 >/dev/null 2>&1 ||
    { echo "pandas 3.1.1 cannot be installed"; exit 2; }
"$folder/venv/bin/python" - <<'PY'
import io, sqlite3, sys
import numpy, pandas

VALUE = 2 ** 53 + 1
database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE t (a INTEGER)")
database.executemany("INSERT INTO t VALUES (?)", [(VALUE,), (None,)])


def sql(**how):
    return pandas.read_sql_query("SELECT a FROM t", database, **how)


def json(**how):
    return pandas.read_json(io.StringIO('{"a": %d}\n{"a": null}\n' % VALUE), lines=True, **how)


def csv(**how):
    return pandas.read_csv(io.StringIO("a,b\n%d,x\n,y\n" % VALUE), **how)


by_name, nullable, arrow = {"dtype": {"a": "Int64"}}, {"dtype_backend": "numpy_nullable"}, {"dtype_backend": "pyarrow"}
cases = [("read_sql_query, dtype", sql, by_name, VALUE - 1), ("read_sql_query, backend", sql, nullable, VALUE),
         ("read_json, backend", json, nullable, VALUE - 1), ("read_json, pyarrow", json, arrow, VALUE - 1),
         ("read_csv, dtype", csv, by_name, VALUE), ("read_csv, backend", csv, nullable, VALUE)]
print("pandas", pandas.__version__, "numpy", numpy.__version__)
good = True
for name, read, how, expected in cases:
    column = read(**how)["a"]
    print(f"{name}: {column.dtype}, {column[0]}")
    good = good and str(column.dtype).lower().startswith("int64") and int(column[0]) == expected and column.isna()[1]
sys.exit(0 if good else 1)
PY
