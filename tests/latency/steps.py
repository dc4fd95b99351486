"""Prints median times of later steps from a store, and checks them.

    steps.py STORE added METHOD TOLERANCE      step of "METHOD us=X" minus step of "METHOD us=0" against X
    steps.py STORE... repeat TOLERANCE         medians of the same cells in several stores
"""
import sqlite3
import sys


def medians(path):
    rows = sqlite3.connect(path).execute(
        "SELECT config, context, batch, steps, median_us FROM v_latency WHERE phase = 'later_step'")
    return {row[:4]: row[4] for row in rows}


def added(path, method, tolerance):
    db, bad = sqlite3.connect(path), False
    rows = db.execute("SELECT json_extract(f.options_json, '$.us'), l.median_us FROM v_latency l JOIN config f "
                      "ON f.id = l.config_id WHERE l.method = ? AND l.phase = 'later_step'", (method,)).fetchall()
    base = dict(rows)[0]
    for us, median in sorted(rows):
        if us > 0:
            error = (median - base) / us - 1
            bad |= abs(error) > tolerance
            print(f"{method} {us} us: reported {median - base:.1f} us, {100 * error:+.2f} %")
    return bad or len(rows) < 2


def repeat(paths, tolerance):
    stores, bad = [medians(p) for p in paths], False
    for cell in stores[0]:
        values = [s[cell] for s in stores]
        spread = (max(values) - min(values)) / min(values)
        bad |= spread > tolerance
        print(*cell, *(f"{v:.1f}" for v in values), f"spread {100 * spread:.2f} %")
    return bad or not stores[0]


if "added" in sys.argv:
    sys.exit(added(sys.argv[1], sys.argv[3], float(sys.argv[4])))
at = sys.argv.index("repeat")
sys.exit(repeat(sys.argv[1:at], float(sys.argv[at + 1])))
