#!/usr/bin/env python3
"""A disk that is full, broken or writes half, from some write on or for a few writes: python3 tests/campaign/disk.py
[SECONDS] [SEED]

Runs, merges, exports and trainings end with exit code 1 and a sentence, or are not harmed; nothing is damaged; the same
command on a sound disk then stores what an undisturbed one stores. The disk is tests/campaign/faulty_disk.c.
"""
import os

from campaign import Campaign

TRAINING = ["start=random", "layers=2", "hidden=64", "query_heads=2", "kv_heads=1", "head_dim=32", "intermediate=64",
            "lengths=[128]", "tails=[128]", "tokens=256", "steps=4", "save_every=2", "threads=1"]


def commands(c, folder):
    """What is tried: name, arguments, what it makes."""
    config = ["--config", "tests/campaign/small.json", "--quiet", "--out", ""]
    train = ["train", "--quiet", "--config", "configs/train_tiny.json"]
    for setting in TRAINING + ["out=%s/model" % folder, "results=%s/train.db" % folder]:
        train += ["--set", setting]
    return {
        "run": (config + ["--db", folder + "/run.db"], folder + "/run.db"),
        "devices": (config + ["--db", folder + "/run.db", "--devices", "cpu,cpu"], folder + "/run.db"),
        "merge": (["merge", folder + "/all.db", c.path("one.db"), c.path("two.db")], folder + "/all.db"),
        "export": (["export", c.path("whole.db"), "--csv", "--out", folder + "/rows.csv"], folder + "/rows.csv"),
        "train": (train, folder + "/model/model.safetensors"),
    }


def outcome(c, path):
    if path.endswith(".db"):
        return c.content(path)
    with open(path, "rb") as file:
        return [file.read()]


def main():
    c = Campaign("disk")
    shim = os.environ.get("FAULTY_DISK", "build/campaign/faulty_disk.so")
    if not os.path.exists(shim):
        shim = c.path("faulty_disk.so")
        os.system("%s -D_GNU_SOURCE -O1 -fPIC -shared -o %s tests/campaign/faulty_disk.c -ldl" % (os.environ.get("CC", "cc"), shim))
    shim = os.path.abspath(shim)
    config = ["--config", "tests/campaign/small.json", "--quiet", "--out", "", "--db"]
    for name, more in (("whole.db", []), ("one.db", ["--shard", "1/2"]), ("two.db", ["--shard", "2/2"])):
        if c.run(config + [c.path(name)] + more) != 0:
            c.fail("the undisturbed run", c.said())
            c.end()
    whole = {}
    os.makedirs(c.path("whole"), exist_ok=True)
    for name, (arguments, made) in commands(c, c.path("whole")).items():
        if name == "devices":
            os.unlink(c.path("whole/run.db"))
        if c.run(arguments) != 0:
            c.fail("undisturbed: " + name, c.said())
            c.end()
        whole[name] = outcome(c, made)
    first_guess = {"run": 400, "devices": 400, "merge": 200, "export": 6, "train": 120}
    for r in c.tries():
        folder = c.path("try")
        os.makedirs(folder)
        name = r.choice(["run", "run", "devices", "merge", "merge", "export", "train"])
        kind = r.choice(["full", "full", "broken", "quota", "short"])
        first = int(first_guess[name] ** r.random()) - 1 if r.random() < 0.7 else r.randrange(first_guess[name])
        count = r.choice([0, 0, 1, 1, 2, 5, 20]) if kind != "short" else r.choice([0, 1, 3])
        arguments, made = commands(c, folder)[name]
        what = "%s, disk %s from write %d, %d writes" % (name, kind, first, count)
        code = c.run(arguments, {"LD_PRELOAD": shim, "MASKBENCH_DISK": "%d %d %s %s" % (first, count, kind, folder)})
        c.counts["faults met" if code else "not harmed"] += 1
        if code is None:
            continue
        if code not in (0, 1):
            c.fail("%s: exit code %d" % (what, code), c.said())
        if code == 1 and "harness" not in c.said():
            c.fail("%s: exit code 1 without a sentence" % what, c.said())
        if made.endswith(".db"):
            c.check_whole(made, what)
        if code == 0:
            c.same(whole[name], outcome(c, made), what + ", exit code 0")
        open(c.path("try-said"), "w").close()
        again = c.run(arguments)
        if again != 0:
            c.fail("%s: the same command on a sound disk: exit code %s" % (what, again), c.said())
        else:
            c.same(whole[name], outcome(c, made), what + ", then on a sound disk")
        c.check_sanitizer()
    c.end()


main()
