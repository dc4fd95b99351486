#!/usr/bin/env python3
"""Writes datasets/sample/data: a small set in LongBench's file format, every text made here (MIT).

It lets the suite run without a download. Six question-answering tasks hold facts in the wording that models/tiny was
trained on, so that exact attention can answer them and a method that loses the fact cannot; the other tasks go
through every prompt, metric and post-processing, and no score on them means anything. The rows are short on purpose.

    python3 datasets/sample/make.py        # from any folder; the same bytes every time
"""
import hashlib
import json
import os
import random

HERE = os.path.dirname(os.path.abspath(__file__))
TEXT = os.path.join(HERE, "..", "text")
OUT = os.path.join(HERE, "data")


# ---- sentences from the phrase table of the built-in haystack ----

def read_table():
    topics, name = {}, None
    for line in open(os.path.join(TEXT, "haystack.txt"), encoding="utf-8"):
        line = line.rstrip("\n")
        if not line or line[0] == "#":
            continue
        if line[0] == "[":
            name = line[1:-1]
            topics[name] = {"lists": {}, "patterns": []}
        elif line.startswith("= "):
            topics[name]["patterns"].append(line[2:])
        else:
            key, values = line.split(":", 1)
            topics[name]["lists"][key] = [v.strip() for v in values.split("|")]
    return topics


TABLE = read_table()
TOPICS = [t for t in TABLE if t != "general"]
NAMES = TABLE["general"]["lists"]["name"]
ADJECTIVES = open(os.path.join(TEXT, "niah_adjectives.txt")).read().split()
NOUNS = open(os.path.join(TEXT, "niah_nouns.txt")).read().split()


def sentence(r, topic):
    own, general = TABLE[topic], TABLE["general"]
    pattern = r.choice(own["patterns"] if r.random() < .5 else general["patterns"])
    used, out, rest = set(), "", pattern
    while "{" in rest:
        head, rest = rest.split("{", 1)
        place, rest = rest.split("}", 1)
        article = place.startswith("a ")
        place = place[2:] if article else place
        values = own["lists"].get(place) or general["lists"][place]
        free = [v for v in values if v not in used] or values
        word = r.choice(free)
        used.add(word)
        out += head + (("an " if word[0] in "aeiou" else "a ") if article else "") + word
    out += rest
    return out[0].upper() + out[1:]


def paragraph(r, topic, n):
    seen, out = set(), []
    while len(out) < n:
        s = sentence(r, topic)
        if s[:12] not in seen:
            seen.add(s[:12])
            out.append(s)
    return out


def words(text):
    return len(text.split())


def key(r, used):
    while True:
        k = r.choice(ADJECTIVES) + "-" + r.choice(NOUNS)
        if k not in used:
            used.add(k)
            return k


def digits(r, n=7):
    return str(r.randint(1, 9)) + "".join(r.choice("0123456789") for _ in range(n - 1))


def insert(r, sentences, facts):
    for fact in facts:
        sentences.insert(r.randint(1, len(sentences) - 1), fact)
    return sentences


ROWS = {}


def add(task, context, question, answers, classes=None, language="en", length=None):
    rows = ROWS.setdefault(task, [])
    if length is None:
        length = words(context) + words(question) + words(answers[0])
    identity = hashlib.sha256(("maskbench sample %s %d" % (task, len(rows))).encode()).hexdigest()[:48]
    rows.append({"input": question, "context": context, "answers": answers, "length": length, "dataset": task,
                 "language": language, "all_classes": classes, "_id": identity})


# ---- single-document question answering: one text, facts of one kind in it ----

def code_fact(k, v):
    return "The secret code of the %s is %s." % (k, v)


def number_fact(k, v):
    return "One of the special magic numbers for %s is: %s." % (k, v)


def single_document():
    for task, fact, question, sizes in (
            ("narrativeqa", code_fact, "What is the secret code of the %s?", (40, 70, 100, 80)),
            ("qasper", number_fact, "What is the special magic number for %s mentioned in the provided text?",
             (45, 60, 90, 75)),
            ("multifieldqa_en", code_fact, "What is the secret code of the %s?", (50, 65, 110, 80))):
        r = random.Random("sample " + task)
        for size in sizes:
            used, text = set(), []
            while len(text) < size:
                text += paragraph(r, r.choice(TOPICS), r.randint(6, 10))
            facts = [(key(r, used), digits(r)) for _ in range(6)]
            k, v = facts[0]
            body = insert(r, text, [fact(*f) for f in facts[1:]])
            # The longest text loses its middle at a limit of 2000 tokens: the fact asked for stands before it.
            body.insert(r.randint(1, len(body) // (6 if size == max(sizes) else 1) - 1), fact(k, v))
            if task == "qasper":       # sections, as in a paper
                cut = len(body) // 3
                context = "\n\n".join(title + "\n" + " ".join(part) for title, part in (
                    ("Introduction", body[:cut]), ("Method", body[cut:2 * cut]), ("Results", body[2 * cut:])))
            elif task == "narrativeqa":
                context = "\n\n".join(" ".join(body[i:i + 12]) for i in range(0, len(body), 12))
            else:
                context = " ".join(body)
            add(task, context, question % k, [v])


# ---- multi-document question answering: titled passages, one fact in most of them ----

def multi_document():
    for task, fact, question, counts in (
            ("hotpotqa", code_fact, "What is the secret code of the %s?", (6, 8, 12, 10)),
            ("2wikimqa", number_fact, "What is the special magic number for %s mentioned in the provided text?",
             (5, 7, 11, 9)),
            ("musique", code_fact, "What is the secret code of the %s?", (7, 9, 13, 10))):
        r = random.Random("sample " + task)
        for count in counts:
            used, passages, facts = set(), [], []
            for i in range(count):
                topic = TOPICS[(i * 4 + r.randint(0, 3)) % len(TOPICS)]
                text = paragraph(r, topic, r.randint(6, 9))
                facts.append((key(r, used), digits(r)))
                insert(r, text, [fact(*facts[-1])])
                passages.append("Passage %d:\nThe %s of %s\n%s" % (i + 1, topic, r.choice(NAMES), " ".join(text)))
            k, v = r.choice(facts[:2] if count == max(counts) else facts)
            context = "\n\n".join(passages)
            add(task, context, question % k, [v], length=words(context) + words(question % k) + 1)


# ---- summaries: reports, a meeting, news ----

def summaries():
    r = random.Random("sample gov_report")
    for n in (4, 6, 14, 8):
        parts, gist = [], []
        for i in range(n):
            topic = TOPICS[(i * 5 + n) % len(TOPICS)]
            text = paragraph(r, topic, 7)
            parts.append("Section %d: the %s\n%s" % (i + 1, topic, " ".join(text)))
            gist.append("On the %s the office found this: %s" % (topic, text[0]))
        context = "What the office found\n\n" + "\n\n".join(parts)
        add("gov_report", context, "", [" ".join(gist)], length=words(context) + 1)
    r = random.Random("sample qmsum")
    for n in (24, 34, 60, 40):
        people = r.sample(NAMES, 4)
        topic = r.choice(TOPICS)
        things = TABLE[topic]["lists"]["thing"]
        lines, decided = [], None
        for i in range(n):
            who, what = r.choice(people), r.choice(things)
            line = r.choice((
                "I looked at the %s again, and it is not as bad as we thought." % what,
                "Could we come back to the %s before we close?" % what,
                "Yes, but who pays for the %s?" % what,
                "The people from the %s asked me the same question." % topic,
                "Let us first hear what was written down last time about the %s." % what,
                "I do not agree. The %s can wait until spring." % what,
                "Fine. %s writes it down." % r.choice(people)))
            if i == n // 2:
                decided = what
                line = "Then we decide it now: the %s will be repaired before winter." % what
            lines.append("%s: %s" % (who, line))
        context = "\n".join(lines)
        question = "What did the group decide about the %s?" % decided
        add("qmsum", context, question, ["The group decided that the %s will be repaired before winter." % decided],
            length=words(context) + words(question) + 1)
    r = random.Random("sample multi_news")
    for n in (2, 3, 5, 3):
        topic, parts, gist = r.choice(TOPICS), [], []
        for i in range(n):
            text = paragraph(r, topic, 12)
            parts.append("Passage %d:\nNews from the %s\n%s" % (i + 1, topic, " ".join(text)))
            gist.append(text[0])
        add("multi_news", "\n\n".join(parts), "", [" ".join(gist)])


# ---- few-shot: question types, trivia, dialogues ----

def few_shot():
    classes = ["Animal", "City or town", "Colour", "Day or time", "Distance", "Food", "Number of things", "Person",
               "Price", "Reason", "River or lake", "Tool"]
    forms = {
        "Animal": "What creature sleeps {place} all winter ?", "City or town": "What town lies {place} ?",
        "Colour": "What colour is the {thing} {place} ?", "Day or time": "When does the {person} open the gate ?",
        "Distance": "How far is it from the {thing} to the next village ?",
        "Food": "What does the {person} eat {time} ?", "Number of things": "How many {things} are {place} ?",
        "Person": "Who mended the {thing} ?", "Price": "What does a {thing} cost {time} ?",
        "Reason": "Why did nobody touch the {things} ?", "River or lake": "What water flows {place} ?",
        "Tool": "What does one need to open the {thing} ?"}

    def ask(r, label):
        lists = TABLE[r.choice(TOPICS)]["lists"]
        text = forms[label]
        for place in ("person", "things", "thing", "place"):
            text = text.replace("{%s}" % place, r.choice(lists[place]))
        return text.replace("{time}", r.choice(TABLE["general"]["lists"]["time"]))

    r = random.Random("sample trec")
    for n in (20, 30, 70, 40):
        labels = [r.choice(classes) for _ in range(n)]
        context = "".join("Question: %s\nType: %s\n" % (ask(r, x), x) for x in labels)
        label = r.choice(classes)
        question = "Question: %s\nType:" % ask(r, label)
        add("trec", context.rstrip("\n"), question, [label], classes, length=words(context) + words(question) + 1)

    r = random.Random("sample triviaqa")
    for n in (4, 5, 9, 6):
        shots = []
        for _ in range(n):
            topic = r.choice(TOPICS)
            text = paragraph(r, topic, 6)
            name, thing = r.choice(NAMES), r.choice(TABLE[topic]["lists"]["thing"])
            text.insert(r.randint(1, 5), "It was %s who brought the %s here." % (name, thing))
            shots.append(("Passage:\n%s\nQuestion:\nWho brought the %s?\nAnswer:\n" % (" ".join(text), thing), name))
        context = "".join(q + a + "\n\n" for q, a in shots[:-1]).rstrip("\n") + "\n"
        name = shots[-1][1]
        add("triviaqa", context, shots[-1][0], [name, name.upper(), name + " from the village"])

    r = random.Random("sample samsum")
    for n in (5, 7, 16, 9):
        shots = []
        for _ in range(n):
            a, b = r.sample(NAMES, 2)
            topic = r.choice(TOPICS)
            thing, when = r.choice(TABLE[topic]["lists"]["thing"]), r.choice(("on Monday", "at noon", "after dinner"))
            turns = ["%s: Hi %s, did you see the %s?" % (a, b, thing),
                     "%s: No, why?" % b,
                     "%s: %s" % (a, r.choice(("It is gone!", "It is broken again.", "Somebody painted it green :D"))),
                     "%s: Oh no. I can come %s and have a look" % (b, when),
                     "%s: Great, thanks!" % a]
            if r.random() < .5:
                turns.insert(2, "%s: And please don't laugh" % a)
            shots.append(("Dialogue: %s\nSummary: " % "\r\n".join(turns),
                          "%s tells %s about the %s. %s will come %s." % (a, b, thing, b, when)))
        context = "".join(q + a + "\n\n" for q, a in shots[:-1]).rstrip("\n") + "\n"
        add("samsum", context, shots[-1][0], [shots[-1][1]])


# ---- synthetic: counting and finding paragraphs ----

def synthetic():
    r = random.Random("sample passage_count")
    for n, copies in ((5, 2), (7, 3), (14, 6), (9, 4)):
        texts = [" ".join(paragraph(r, r.choice(TOPICS), 5)) for _ in range(n)]
        texts += [r.choice(texts[:n]) for _ in range(copies)]
        r.shuffle(texts)
        context = "\n\n".join("Paragraph %d: %s" % (i + 1, t) for i, t in enumerate(texts))
        add("passage_count", context, "", [str(n)], length=words(context) + 1)
    r = random.Random("sample passage_retrieval_en")
    for size in (2, 3, 6, 4):
        texts = [paragraph(r, r.choice(TOPICS), size) for _ in range(30)]
        asked = r.randrange(30)
        abstract = "The paragraph tells this: " + texts[asked][-1]
        context = "\n\n".join("Paragraph %d: %s" % (i + 1, " ".join(t)) for i, t in enumerate(texts))
        add("passage_retrieval_en", context, abstract, ["Paragraph %d" % (asked + 1)],
            length=words(context) + words(abstract) + 1)


# ---- code: the next line of a file ----

def python_function(r, used):
    noun = r.choice([n for n in NOUNS if n not in used])
    used.add(noun)
    size, other = r.randint(2, 9), r.choice(NOUNS)
    body = r.choice((
        ["def count_%s(%ss):" % (noun, noun), "    total = 0", "    for %s in %ss:" % (noun, noun),
         "        if %s.size > %d:" % (noun, size), "            total += 1", "    return total"],
        ["def find_%s(%ss, name):" % (noun, noun), "    for %s in %ss:" % (noun, noun),
         "        if %s.name == name:" % noun, "            return %s" % noun, "    return None"],
        ["class %s:" % noun.capitalize(), "    def __init__(self, %s, size=%d):" % (other, size),
         "        self.%s = %s" % (other, other), "        self.size = size", "",
         "    def double(self):", "        return 2 * self.size"],
        ["def load_%s(path):" % noun, "    with open(path) as file:",
         "        lines = file.read().split()", "    return lines[:%d]" % size]))
    return body


def java_method(r, used):
    noun = r.choice([n for n in NOUNS if n not in used])
    used.add(noun)
    name = noun.capitalize()
    return r.choice((
        ["    public int count%s(List<%s> all) {" % (name, name), "        int total = 0;",
         "        for (%s one : all) {" % name, "            total += one.size();", "        }",
         "        return total;", "    }"],
        ["    public %s get%s() {" % (name, name), "        if (%s == null) {" % noun,
         "            %s = new %s();" % (noun, name), "        }", "        return %s;" % noun, "    }"]))


def code():
    r = random.Random("sample lcc")
    for i, n in enumerate((9, 12, 30, 18)):
        java, used, lines = i % 2 == 1, set(), []
        for _ in range(n):
            lines += (java_method if java else python_function)(r, used) + [""]
        if java:
            lines = ["public class Store {"] + lines
        cut = max(j for j in range(len(lines) - 1) if "return" in lines[j])
        answer = lines[cut]
        add("lcc", "\n".join(lines[:cut]) + "\n", "", [answer], language="java" if java else "python")
    r = random.Random("sample repobench-p")
    for n in (3, 4, 8, 5):
        used, files = set(), []
        for _ in range(n):
            lines = []
            for _ in range(3):
                lines += python_function(r, used) + [""]
            files.append("# Path: store/%s.py\n%s" % (r.choice(NOUNS), "\n".join(lines)))
        tail = ["# Path: store/main.py", "import json", "import sys", ""] + python_function(r, used)
        answer = tail.pop()
        add("repobench-p", "\n".join(files), "\n".join(tail) + "\n", [answer], language="python")


# ---- Chinese: short texts in the shape of the five tasks ----

ZH_PEOPLE = "小明 王老师 李医生 张师傅 陈女士 赵先生 刘同学 周阿姨".split()
ZH_PLACES = "码头 花园 图书馆 市场 学校 火车站 剧院 农场 河边 博物馆".split()
ZH_THINGS = "木船 玫瑰 地图 面包 课桌 车票 面具 水车 石桥 花瓶 铜钟 灯笼".split()
ZH_TIMES = "早上 中午 傍晚 星期一 去年冬天 雨停以后 开会以前".split()
ZH_VERBS = "修好了 买下了 找到了 画了 借走了 擦干净了".split()


def zh_sentence(r):
    return r.choice((
        "{t}，{p}在{q}{v}一件旧{x}。", "{q}的{x}又大又重，{p}一个人搬不动。", "{p}说，{t}的{q}最安静。",
        "没有人知道{x}为什么放在{q}。", "{p}和{p2}{t}一起去了{q}。", "如果下雨，{q}的{x}就要收起来。")).format(
            t=r.choice(ZH_TIMES), p=r.choice(ZH_PEOPLE), p2=r.choice(ZH_PEOPLE), q=r.choice(ZH_PLACES),
            x=r.choice(ZH_THINGS), v=r.choice(ZH_VERBS))


def zh_text(r, n):
    return "".join(zh_sentence(r) for _ in range(n))


def chinese():
    r = random.Random("sample zh")
    for n in (14, 24, 34):
        thing, place = r.choice(ZH_THINGS), r.choice(ZH_PLACES)
        context = zh_text(r, n) + "最后，那件%s放在了%s的二楼。" % (thing, place) + zh_text(r, n // 2)
        question = "那件%s最后放在了哪里？" % thing
        add("multifieldqa_zh", context, question, [place + "的二楼"], language="zh",
            length=len(context) + len(question) + len(place) + 3)
    for n in (3, 4, 6):
        parts = ["文章%d\n标题：%s\n%s" % (i + 1, r.choice(ZH_PLACES) + "的" + r.choice(ZH_THINGS), zh_text(r, 6))
                 for i in range(n)]
        context, place, time = "\n\n".join(parts), r.choice(ZH_PLACES), r.choice(ZH_TIMES)
        question = "什么时候去%s比较好？" % place
        answers = ["%s去%s比较好，那时最安静。" % (time, place), "%s最安静。" % time]
        add("dureader", context, question, answers, language="zh", length=len(context) + len(question) + len(answers[0]))
    for n in (14, 22, 32):
        people = r.sample(ZH_PEOPLE, 3)
        context = "\n".join("%s：%s" % (r.choice(people), zh_sentence(r)) for _ in range(n))
        add("vcsum", context, "", ["会议讨论了%s的修理，决定由%s负责。" % (r.choice(ZH_THINGS), people[0])],
            language="zh", length=len(context) + 1)
    classes = "农业 交通 教育 文化 天气 市场 医疗 体育".split()
    for n in (8, 12, 18):
        shots = [("新闻内容：\n%s\n类别：" % zh_text(r, 2), r.choice(classes)) for _ in range(n)]
        context = "".join(q + a + "\n" for q, a in shots[:-1])
        add("lsht", context.rstrip("\n"), shots[-1][0], [shots[-1][1]], classes, language="zh",
            length=len(context) + len(shots[-1][0]) + 1)
    for n in (12, 20, 30):
        texts = [zh_text(r, 3) for _ in range(n)]
        asked = r.randrange(n)
        context = "\n\n".join("段落%d：%s" % (i + 1, t) for i, t in enumerate(texts))
        abstract = "这一段说的是：" + texts[asked].split("。")[1] + "。"
        add("passage_retrieval_zh", context, abstract, ["段落%d" % (asked + 1)], language="zh",
            length=len(context) + len(abstract) + 1)


def main():
    for make in (single_document, multi_document, summaries, few_shot, synthetic, code, chinese):
        make()
    os.makedirs(OUT, exist_ok=True)
    for task, rows in sorted(ROWS.items()):
        with open(os.path.join(OUT, task + ".jsonl"), "w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
