"""Reads a maskbench database: the standard library is enough, pandas is used where it is asked for.

    import maskbench
    with maskbench.open("results/quick.db") as db:
        for row in db.rows("v_accuracy", sampler="T=8/32"):
            print(row["config"], row["task"], row["score"])
        frame = db.frame("v_paired")        # needs pandas

The views (results/README.md) are the interface. The file is opened for reading only.
"""
import sqlite3
from urllib.parse import quote

__all__ = ["Database", "open", "pages"]


class Database:
    def __init__(self, path):
        self.connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        self.connection.row_factory = sqlite3.Row

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.connection.close()

    def views(self):
        """Names of the views."""
        query = "SELECT name FROM sqlite_master WHERE type = 'view' AND name LIKE 'v\\_%' ESCAPE '\\' ORDER BY name"
        return [row[0] for row in self.connection.execute(query)]

    def _select(self, view, equal):
        if view not in self.views():
            raise KeyError(f"no view {view}; there are {', '.join(self.views())}")
        columns = {row[1] for row in self.connection.execute(f'PRAGMA table_info("{view}")')}
        unknown = sorted(set(equal) - columns)
        if unknown:
            raise KeyError(f"{view} has no column {unknown[0]}; it has {', '.join(sorted(columns))}")
        where = " AND ".join(f'"{name}" IS ?' for name in equal)
        return f'SELECT * FROM "{view}"' + (f" WHERE {where}" if where else ""), list(equal.values())

    def rows(self, view, **equal):
        """Rows of a view as dicts; keyword arguments are columns and the values that they must have."""
        query, values = self._select(view, equal)
        return [dict(row) for row in self.connection.execute(query, values)]

    def frame(self, view, **equal):
        """The same as a pandas DataFrame."""
        import pandas
        query, values = self._select(view, equal)
        return pandas.read_sql_query(query, self.connection, params=values)


def open(path):
    """The database of a run; MB of rows stay in the file until a view is asked for."""
    return Database(path)


def pages(blob, kv_heads):
    """Pages of v_selection by KV head; None stands for all of the prefix (results/schema.sql, table selection)."""
    at = 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = blob[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    heads = []
    for _ in range(kv_heads):
        count, page, chosen = number(), 0, []
        for _ in range(count - 1):
            page += number()
            chosen.append(page)
        heads.append(chosen if count else None)
    return heads
