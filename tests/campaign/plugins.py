#!/usr/bin/env python3
"""A plug-in that goes wrong once, in a random way, at a random call of a random hook: python3 tests/campaign/plugins.py
[SECONDS] [SEED]

It costs only itself: the run ends with exit code 0, 2 or 3 and a sentence, the rows of the method beside it are those of a run
without it, nothing that it started is left over, and the same command with the sound plug-in makes everything good. The
plug-in is tests/campaign/chaos.c.
"""
import os
import signal
import time

from campaign import Campaign

PLACES = ["constructor", "open", "close", "request_begin", "select", "select", "select", "commit"]
ACTIONS = ["segfault", "abort", "exit", "_exit", "raise", "hang", "spin", "deep", "thread", "chatter", "close", "dup", "fork",
           "child", "program", "exec", "alarm", "free", "process", "fail", "spoil", "spoil", "spoil"]
# What has to run in the program's own process, where it is timed, is guarded against these.
GUARDED = ["exit", "_exit", "abort", "process", "fail"]
GUARDED_STATE = [0, 1, 2, 3, 4, 5, 8]
ROWS = """SELECT task, item, pass, status, prediction, score, work, new_tokens, dense_calls, sparse_calls FROM v_samples
          WHERE method = '%s' ORDER BY 1, 2, 3"""
TIMED = ["--set", 'passes=["latency"]', "--set",
         'latency={"contexts": [64], "steps": [2], "blocks_max": 2, "seconds": 0.02, "prefill": false}']


def left_over(tag):
    """Processes that carry the tag in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open("/proc/%s/environ" % entry, "rb") as environment:
                if entry.isdigit() and b"MASKBENCH_TRY=" + tag.encode() in environment.read().split(b"\0"):
                    found.append(int(entry))
        except OSError:
            pass
    return found


def main():
    c = Campaign("plugins")
    plugin = os.environ.get("CHAOS", "build/campaign/chaos.so")
    if not os.path.exists(plugin):
        plugin = c.path("chaos.so")
        os.system("%s -std=c11 -D_GNU_SOURCE -O2 -fPIC -shared -I. -o %s tests/campaign/chaos.c -lm -pthread" % (
            os.environ.get("CC", "cc"), plugin))
    config = ["--config", "tests/campaign/small.json", "--quiet", "--out", "", "--set", "plugin_seconds=1", "--plugin",
              plugin, "--set", 'methods={"exact": {}, "chaos": {"k": 8}}', "--set",
              'tasks=[{"task": "trec", "limit": 2}]', "--set", 'passes=["quality", "recall", "forced"]', "--db"]
    if c.run(config + [c.path("whole.db")]) != 0 or c.run(config + [c.path("timed.db")] + TIMED) != 0:
        c.fail("the sound plug-in", c.said())
        c.end()
    exact, sound = (c.query(c.path("whole.db"), ROWS % method) for method in ("exact", "chaos"))
    for r in c.tries():
        timed = r.random() < 0.25
        action = r.choice(GUARDED if timed else ACTIONS)
        place = "select" if action == "spoil" else r.choice(PLACES[1:] if timed else PLACES)
        value = r.randrange(1, 30000)
        if timed and action == "process":
            value = value // 10 * 10 + r.choice(GUARDED_STATE)
        call = 0 if place in ("constructor", "open", "close") else int(60 ** r.random()) - 1
        chaos = "%s %d %s %d %s" % (place, call, action, value, "all" if timed else r.choice(["worker", "all"]))
        tag, database = "%s-%d-%d" % (os.path.basename(c.scratch), c.seed, c.number), c.path("try.db")
        code = c.run(config + [database] + (TIMED if timed else []), {"MASKBENCH_CHAOS": chaos, "MASKBENCH_TRY": tag})
        c.counts["timed" if timed else "in workers"] += 1
        c.counts["exit code %s" % code] += 1
        what = "MASKBENCH_CHAOS=\"%s\"" % chaos
        if code is None:
            continue
        if code not in (0, 2, 3):
            c.fail("%s: exit code %d" % (what, code), c.said())
        if code in (2, 3) and not c.said().strip():
            c.fail("%s: exit code %d without a sentence" % (what, code))
        time.sleep(0.1)
        for pid in left_over(tag):
            c.fail("%s: process %d is left over" % (what, pid))
            os.kill(pid, signal.SIGKILL)
        c.check_whole(database, what)
        if code != 2 and not timed and c.query(database, ROWS % "exact") != exact:
            c.fail("%s: rows of exact are others" % what, c.query(database, ROWS % "exact"), exact)
        if code != 2 and timed and c.query(database, "SELECT count(*) FROM v_latency WHERE method = 'exact'") == [(0,)]:
            c.fail("%s: exact was not timed" % what, c.said())
        if r.random() < 0.3 and not timed:
            again = c.run(config + [database])
            if again != 0 or c.query(database, ROWS % "exact") != exact or c.query(database, ROWS % "chaos") != sound:
                c.fail("%s: then the sound plug-in: exit code %s" % (what, again), c.said())
        c.check_sanitizer(expected=True)
    c.end()


main()
