#!/usr/bin/env python3
"""Others at the database of a run: they lock it, read it for long, run on it as well, move it, remove it, replace it, link to
it: python3 tests/campaign/locks.py [SECONDS] [SEED]

A run waits for a lock and stores what an undisturbed run stores. A run whose file went away ends with exit code 1 and saves
the rows beside it, each as an undisturbed run has it. A second run on one file is refused.
"""
import glob
import os
import sqlite3
import time

from campaign import Campaign


def hold(c, r, database):
    """A lock for a while, by another program."""
    try:
        other = sqlite3.connect(database, timeout=2, isolation_level=None)
        if r.random() < 0.7:
            other.execute(r.choice(["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"]))
        else:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM sqlite_master").fetchall()
        time.sleep(r.random() * 1.5)
        other.execute("ROLLBACK")
        other.close()
        c.counts["locks"] += 1
    except sqlite3.Error:
        pass


def move(c, r, database):
    """The file goes away from its name."""
    how = r.choice(["remove", "rename", "replace", "link"])
    try:
        if how == "remove":
            os.unlink(database)
        elif how == "rename":
            os.rename(database, c.path("try-elsewhere.db"))
        elif how == "replace":
            with open(c.path("try-new"), "wb") as new:
                new.write(os.urandom(r.choice([0, 10, 8192])))
            os.rename(c.path("try-new"), database)
        else:
            os.rename(database, c.path("try-elsewhere.db"))
            os.symlink("nowhere.db", database)
    except OSError:
        return None
    c.counts["moved files"] += 1
    return how


def check_saved(c, whole, database, what):
    """What was saved are rows of the undisturbed run."""
    for saved in glob.glob(database + ".saved-*"):
        if saved.endswith(("-wal", "-shm")):
            continue
        c.check_whole(saved, what)
        rows = c.content(saved, "WHERE relation = 'sample'")
        others = [row for row in rows if row not in set(whole)]
        if others:
            c.fail("%s: rows that an undisturbed run does not have" % what, others[:3])
        c.counts["saved rows"] += len(rows)


def main():
    c = Campaign("locks")
    config = ["--config", "tests/campaign/small.json", "--quiet", "--out", "", "--db"]
    begin = time.time()
    if c.run(config + [c.path("whole.db")]) != 0:
        c.fail("the undisturbed run", c.said())
        c.end()
    longest = time.time() - begin
    whole = c.content(c.path("whole.db"))
    for r in c.tries():
        database, moved, second = c.path("try.db"), None, None
        name = database
        if r.random() < 0.3:  # by another name
            name = c.path("try-link.db")
            open(database, "w").close()
            r.choice([os.symlink, os.link])(database, name)
        child = c.start(config + [name])
        for _ in range(r.choice([1, 2, 3])):
            time.sleep(r.random() * longest * 0.6)
            what = r.choice(["hold", "hold", "hold", "move", "second"])
            if child.poll() is not None or not os.path.exists(database):
                break
            if what == "hold":
                hold(c, r, database)
            elif what == "second" and second is None:
                other = r.choice([database, name])
                second = c.start(config + [other] + r.choice([[], ["--fresh"]]))
                c.counts["second runs"] += 1
            elif what == "move" and second is None and name == database:
                moved = move(c, r, database)
                break
        code = c.wait(child)
        codes = {code}
        if second is not None:
            codes.add(c.wait(second))
        if None in codes:
            continue
        allowed = {0, 1, 2} if moved or second is not None else {0}
        if not codes <= allowed or (second is not None and 0 not in codes):
            c.fail("exit codes %s after %s" % (codes, moved or ("a second run" if second else "locks")), c.said())
        if moved:
            if code == 0 and moved != "rename" and not os.path.exists(database):
                c.fail("exit code 0, and the file is gone (%s)" % moved, c.said())
            check_saved(c, whole, database, moved)
        else:
            c.check_whole(database, "another program's lock")
            again = c.run(config + [name])
            if again != 0:
                c.fail("the same command again: exit code %s" % again, c.said())
            else:
                c.same(whole, c.content(database), "after locks")
        c.check_sanitizer()
    c.end()


main()
