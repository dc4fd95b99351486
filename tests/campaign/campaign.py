"""What the mutators of this folder share. Each is a program: python3 tests/campaign/NAME.py [SECONDS] [SEED].

It goes on until SECONDS are over (60), prints its seed first and counts last, and exits 1 when something did not hold.
SIGTERM ends it with the counts so far. One try is a function of (SEED, number): --only NUMBER repeats a single one.
HARNESS names another build of the program, such as one with sanitizers.
"""
import collections
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SANITIZER_EXIT = 99


class Campaign:
    def __init__(self, name):
        os.chdir(ROOT)
        arguments = sys.argv[1:]
        self.only = None
        if "--only" in arguments:
            at = arguments.index("--only")
            self.only = int(arguments[at + 1])
            del arguments[at:at + 2]
        self.name = name
        self.seconds = float(arguments[0]) if arguments else 60.0
        self.seed = int(arguments[1]) if len(arguments) > 1 else int(time.time())
        self.counts = collections.Counter()
        self.failures = 0
        self.number = 0
        self.left_over = []  # processes to end with us
        self.scratch = tempfile.mkdtemp(prefix="campaign-")
        # Another build in between would be other code, whose rows stand for themselves.
        self.harness = os.path.join(self.scratch, "harness")
        shutil.copy(os.environ.get("HARNESS", "harness"), self.harness)
        self.asan = os.path.join(self.scratch, "sanitizer")
        self.environment = dict(
            os.environ, ASAN_OPTIONS="detect_leaks=0:exitcode=%d:log_path=%s" % (SANITIZER_EXIT, self.asan),
            UBSAN_OPTIONS="print_stacktrace=1:log_path=%s" % self.asan)
        signal.signal(signal.SIGTERM, lambda *_: self.end())
        signal.signal(signal.SIGINT, lambda *_: self.end())
        print("%s: seed %d" % (name, self.seed), flush=True)

    def path(self, name):
        return os.path.join(self.scratch, name)

    def tries(self):
        """Numbers, each with a random generator of its own."""
        begin = said = time.time()
        while self.only is not None or time.time() - begin < self.seconds:
            self.number = self.number + 1 if self.only is None else self.only
            yield random.Random(self.seed * 1000003 + self.number)
            self.counts["tries"] += 1
            self.clear()
            if self.failures >= 5 or self.only is not None:
                break
            if time.time() - said > 20:
                self.summary()
                said = time.time()

    def clear(self):
        """Removes what a try made: everything that begins with "try"."""
        for entry in os.listdir(self.scratch):
            if entry.startswith("try"):
                path = self.path(entry)
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)

    def fail(self, text, *more):
        self.failures += 1
        print("FAILED: %s: try %d of seed %d: %s" % (self.name, self.number, self.seed, text), flush=True)
        for part in more:
            print("    " + str(part)[-3000:].replace("\n", "\n    "), flush=True)

    def start(self, arguments, environment=None, **more):
        """Starts the program with both outputs in a file below scratch, in a session of its own."""
        with open(self.path("try-said"), "ab") as said:
            child = subprocess.Popen([self.harness] + arguments, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
                                     env=dict(self.environment, **(environment or {})), start_new_session=True, **more)
        self.left_over.append(child)
        return child

    def wait(self, child, seconds=120):
        """Its exit code, negative for a signal; None and a failure where it does not end."""
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.fail("does not end in %d s: %s" % (seconds, " ".join(child.args[1:])), self.said())
            self.end_group(child)
            code = None
        self.left_over.remove(child)
        return code

    def run(self, arguments, environment=None, seconds=120):
        return self.wait(self.start(arguments, environment), seconds)

    def said(self):
        try:
            with open(self.path("try-said"), "rb") as said:
                return said.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def end_group(self, child):
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except OSError:
            pass
        child.wait()

    def check_sanitizer(self, expected=False):
        """Reports of the sanitizers are failures, but for those of processes that are meant to go wrong."""
        for entry in sorted(os.listdir(self.scratch)):
            if entry.startswith("sanitizer."):
                if not expected:
                    with open(self.path(entry), errors="replace") as report:
                        self.fail("a sanitizer's report", report.read())
                os.unlink(self.path(entry))

    def content(self, database, where=""):
        """Everything stored but times, in a fixed order."""
        connection = sqlite3.connect("file:%s?mode=ro" % database, uri=True, timeout=30)
        try:
            return sorted(map(repr, connection.execute("SELECT * FROM v_content " + where)))
        finally:
            connection.close()

    def query(self, database, sql):
        connection = sqlite3.connect("file:%s?mode=ro" % database, uri=True, timeout=30)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def check_whole(self, database, what):
        """The database is undamaged; one that is not there or empty is no damage."""
        if not os.path.exists(database):
            return
        try:
            answer = self.query(database, "PRAGMA integrity_check")
        except sqlite3.Error as error:
            answer = error
        if answer != [("ok",)]:
            self.fail("%s left a damaged database" % what, answer)

    def same(self, whole, other, what):
        lost = [row for row in whole if row not in set(other)]
        more = [row for row in other if row not in set(whole)]
        if whole != other:
            self.fail("%s: %d rows are missing, %d are too many or others" % (what, len(lost), len(more)), lost[:3], more[:3],
                      self.said())

    def summary(self):
        print("%s: seed %d, %s, %d failures" % (
            self.name, self.seed, ", ".join("%d %s" % (n, what) for what, n in sorted(self.counts.items())) or "0 tries",
            self.failures), flush=True)

    def end(self):
        for child in list(self.left_over):
            self.end_group(child)
        self.summary()
        shutil.rmtree(self.scratch, ignore_errors=True)
        os._exit(1 if self.failures else 0)
