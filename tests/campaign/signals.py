#!/usr/bin/env python3
"""Signals at random moments, one to three of them, to the run or to a worker of --devices: python3
tests/campaign/signals.py [SECONDS] [SEED]

A run that is asked to end ends with exit code 130, or 0 where it was done; a signal that asks for nothing changes nothing; a
process that was stopped is continued, by whoever stopped it or by the run. The same command then stores what an
undisturbed run stores.
"""
import os
import signal
import time

from campaign import Campaign

ENDS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
NOTHING = [signal.SIGPIPE, signal.SIGWINCH, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG]
FATAL = [signal.SIGKILL, signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR2]


def workers(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as children:
            return [int(word) for word in children.read().split()]
    except OSError:
        return []


def handles(pid):
    """Whether the program has come as far as catching SIGTERM: before, a signal ends it as it ends any program."""
    try:
        with open("/proc/%d/status" % pid) as status:
            mask = [line for line in status if line.startswith("SigCgt")][0]
        return int(mask.split()[1], 16) >> (signal.SIGTERM - 1) & 1 == 1
    except (OSError, IndexError):
        return False


def disturb(c, r, child, longest, devices):
    """Sends signals; what exit codes are right then."""
    right = {0}
    for _ in range(r.choice([1, 1, 2, 3])):
        time.sleep(r.random() * longest * 0.8)
        kind = r.choice(["ends", "ends", "nothing", "stops", "fatal", "worker", "worker stops"])
        if child.poll() is not None:
            break
        if kind.startswith("worker"):
            targets = workers(child.pid) if devices else []
            if targets:
                victim = r.choice(targets)
                try:
                    os.kill(victim, signal.SIGSTOP if kind == "worker stops" else r.choice(ENDS + FATAL))
                    c.counts[kind] += 1
                except OSError:
                    pass
            continue
        early = not handles(child.pid)
        sent = r.choice(ENDS if kind == "ends" else NOTHING if kind == "nothing" else FATAL if kind == "fatal" else [signal.SIGSTOP])
        child.send_signal(sent)
        c.counts[kind] += 1
        if kind == "ends":
            right |= {130} | ({-sent} if early else set())
        elif kind == "fatal":
            right |= {-sent}
        elif kind == "stops":
            time.sleep(r.random() * 0.5)
            child.send_signal(signal.SIGCONT)
        elif early and sent == signal.SIGPIPE:
            right |= {-sent}
    # A second request to end may end it at once.
    return right | ({-s for s in ENDS} if 130 in right else set())


def main():
    c = Campaign("signals")
    config = ["--config", "tests/campaign/small.json", "--quiet", "--out", "", "--set", "plugin_seconds=1", "--db"]
    begin = time.time()
    if c.run(config + [c.path("whole.db")]) != 0:
        c.fail("the undisturbed run", c.said())
        c.end()
    longest = time.time() - begin
    whole = c.content(c.path("whole.db"))
    for r in c.tries():
        devices = ["--devices", "cpu,cpu"] if r.random() < 0.5 else []
        database = c.path("try.db")
        child = c.start(config + [database] + devices)
        right = disturb(c, r, child, longest, devices)
        code = c.wait(child)
        if code is None:
            continue
        if code not in right:
            c.fail("exit code %d, not one of %s" % (code, sorted(right)), c.said())
        c.check_whole(database, "exit code %d" % code)
        if code == 0:
            c.same(whole, c.content(database), "exit code 0")
        again = c.run(config + [database])
        if again != 0:
            c.fail("the same command again: exit code %s" % again, c.said())
        else:
            c.same(whole, c.content(database), "continued after exit code %d" % code)
        c.check_sanitizer()
    c.end()


main()
