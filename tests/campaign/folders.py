#!/usr/bin/env python3
"""Folders of predictions that are scored, made of good and of mutated files, of folders, links, pipes and strange names in
their place: python3 tests/campaign/folders.py [SECONDS] [SEED]

Scoring ends within 20 s with exit code 0 and numbers, or with 1, 2 or 3 and a sentence; it changes nothing in the folder, and
says the same again.
"""
import json
import os

from campaign import Campaign

TASKS = ["trec", "qasper", "samsum", "lcc", "hotpotqa", "passage_count", "passage_retrieval_en", "multifieldqa_zh", "gov_report",
         "niah_single_1", "qa_1", "vt", "cwe", "longbench_v2", "no_such_task"]
NAMES = ["%s.jsonl", "%s.jsonl", "%s.jsonl", "%s.txt", ".%s.jsonl", "%s .jsonl", "%s-\n.jsonl", "%s.jsonl.jsonl", "\xff%s.jsonl",
         "%s" + "x" * 200 + ".jsonl"]


def row(r):
    text = r.choice(["Paris", "", "a b c" * 50, "\u4e2d\u6587\u7b54\u6848", "Paragraph 3", "\u0000", "def f():\n  return 1"])
    mild = r.random() < 0.8
    good = {"pred": text, "answers": [r.choice(["Paris", "Paragraph 3", text])], "all_classes": r.choice([None, ["Paris", "x"]]),
            "length": r.choice([10, 5000, 1e300, -1, None])}
    for key in [] if mild else list(good):
        if r.random() < 0.05:
            good[key] = r.choice([None, [], {}, 3, [3, None], "x"])
        if r.random() < 0.03:
            del good[key]
    return json.dumps(good, ensure_ascii=r.random() < 0.5)


def lines(r, wild):
    data = "\n".join(row(r) for _ in range(r.choice([0, 1, 3, 20]))).encode("utf-8", "surrogatepass")
    if r.random() < (0.4 if wild else 0.1) and data:
        data = bytearray(data)
        for _ in range(r.choice([1, 1, 5])):
            at = r.randrange(len(data))
            change = r.choice(["byte", "cut", "twice"])
            if change == "byte":
                data[at] = r.randrange(256)
            elif change == "cut":
                del data[at:at + r.randrange(1, 40)]
            else:
                data[at:at] = data[at:at + r.randrange(1, 2000)]
            if not data:
                break
    return bytes(data)


def fill(r, folder, depth=0):
    wild = depth or r.random() < 0.5
    os.makedirs(folder, exist_ok=True)
    for _ in range(r.choice([0, 1, 1, 2, 5])):
        path = os.path.join(folder, r.choice(NAMES) % r.choice(TASKS) if wild else "%s.jsonl" % r.choice(TASKS[:9]))
        if os.path.lexists(path):
            continue
        what = r.choice(["file"] * 8 + ["folder", "link", "loop", "dangling", "pipe", "device"]) if wild else "file"
        if what == "file":
            with open(path, "wb") as file:
                file.write(lines(r, wild))
        elif what == "folder" and depth < 2:
            fill(r, path, depth + 1)
        elif what == "link":
            os.symlink("/etc/hostname", path)
        elif what == "loop":
            os.symlink(".", path)
        elif what == "dangling":
            os.symlink("nowhere", path)
        elif what == "pipe":
            os.mkfifo(path)
        elif what == "device":
            os.symlink("/dev/zero", path)


def listing(folder):
    return sorted((base, tuple(sorted(names)), tuple(sorted(files))) for base, names, files in os.walk(folder))


def main():
    c = Campaign("folders")
    for r in c.tries():
        folder = c.path("try-pred" + r.choice(["", "_e"]))
        fill(r, folder)
        before = listing(folder)
        arguments = ["score", folder] + r.choice([[], [], ["--json"], ["--summary"]])
        code = c.run(arguments, seconds=20)
        c.counts["exit code %s" % code] += 1
        said = c.said()
        if code is None:
            continue
        if code not in (0, 1, 2, 3):
            c.fail("exit code %d: %s" % (code, " ".join(arguments)), said, before)
        if not said.strip():
            c.fail("exit code %d without a word" % code, before)
        os.unlink(c.path("try-said"))
        if c.run(arguments, seconds=20) != code or c.said() != said:
            c.fail("it says something else the second time", said, c.said())
        if listing(folder) != before:
            c.fail("it changed the folder", before, listing(folder))
        c.check_sanitizer()
    c.end()


main()
