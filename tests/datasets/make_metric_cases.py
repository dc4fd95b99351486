#!/usr/bin/env python3
"""Writes metric_cases.jsonl and jieba_cases.jsonl: inputs with the scores that the benchmarks' own libraries give.

Needs `pip install rouge==1.0.1 jieba==0.42.1`; difflib and re come with Python. Run it where the cases change:
    python3 tests/datasets/make_metric_cases.py
The metrics are written here from their published definitions on top of those libraries, apart from the C code, so
that the two check each other. All texts are made up for these tests.
"""
import difflib
import json
import os
import random
import re
import string
from collections import Counter

from rouge import Rouge

HERE = os.path.dirname(os.path.abspath(__file__))
CHINESE = ("！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿"
           "–—‘’‛“”„‟…‧﹏.")
rng = random.Random(20240607)


def f1(a, b):
    same = sum((Counter(a) & Counter(b)).values())
    if same == 0:
        return 0.0
    p, r = same / len(a), same / len(b)
    return 2 * p * r / (p + r)


def words(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def qa_f1(pred, ref):
    return f1(words(pred), words(ref))


def rouge_l(pred, ref):
    try:
        return Rouge().get_scores([pred], [ref], avg=True)["rouge-l"]["f"]
    except Exception:
        return 0.0


def lcs(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        old = row[:]
        for j, y in enumerate(b):
            row[j + 1] = old[j] + 1 if x == y else max(old[j + 1], row[j])
    return row[-1]


def rouge_plain(pred, ref):
    a, b = pred.split(), ref.split()
    if not a or not b:
        return 0.0
    n = lcs(a, b)
    p, r = n / len(a), n / len(b)
    return 2 * p * r / (p + r + 1e-8)


def classification(pred, ref, classes):
    found = [c for c in classes if c in pred]
    for label in found:
        if label in ref and label != ref:
            found.remove(label)
    return 1 / len(found) if ref in found else 0.0


def count(pred, ref):
    numbers = re.findall(r"\d+", pred)
    return sum(n == ref for n in numbers) / len(numbers) if numbers else 0.0


def retrieval(pred, ref, cue="Paragraph "):
    return count(pred, re.findall(cue + r"(\d+)", ref)[0])


def ratio_difflib(a, b):
    if a == b:
        return 100
    return round(100 * difflib.SequenceMatcher(None, a, b).ratio()) if a and b else 0


def ratio_indel(a, b):
    if a == b:
        return 100
    return round(100 * (2 * lcs(a, b) / (len(a) + len(b)))) if a and b else 0


def code_line(pred):
    for line in pred.lstrip("\n").split("\n"):
        if "`" not in line and "#" not in line and "//" not in line:
            return line
    return ""


def code(pred, ref):
    return ratio_difflib(code_line(pred), ref) / 100


def code_indel(pred, ref):
    return ratio_indel(code_line(pred), ref) / 100


def batch_text(pred, golds):
    """LongGenBench's file of questions, answers and references."""
    text = "\n".join(pred.split("Answer_"))
    found = [x.strip() for x in re.findall(r"(?<=:\n)(.*?)(?=\n\n|$)", text, re.DOTALL)]
    return "".join(f"Question: \nA_model:Q_{i}\n{a}\nA_gold:\n{g}\n\n" for i, (g, a) in enumerate(zip(golds, found)))


def batch(pred, golds, letters):
    questions = right = 0
    model = gold = mode = None

    def judge():
        if letters:
            return re.findall("A|B|C|D", model)[-1] == re.findall("A|B|C|D", gold)[-1]
        said = re.findall(r"\d*\.?\d+", model.replace(",", ""))
        return bool(said) and said[-1] == re.findall(r"\d*\.?\d+", gold)[-1]

    for line in re.split(r"(?<=\n)", batch_text(pred, golds).replace("\r\n", "\n").replace("\r", "\n")):
        if line.startswith("Question:"):
            if model is not None and gold is not None:
                right += judge()
            mode, questions = "q", questions + 1
        elif line.startswith("A_model:"):
            mode, model = "m", line
        elif line.startswith("A_gold:"):
            mode, gold = "g", line
        elif mode == "m":
            model += line
        elif mode == "g":
            gold += line
    if model is not None and gold is not None:
        right += judge()
    if letters:
        questions = len(golds)
    return right / questions if questions else 0.0


def choice(pred, ref):
    text = pred.replace("*", "")
    m = re.search(r"The correct answer is \(([A-D])\)", text) or re.search(r"The correct answer is ([A-D])", text)
    return float(bool(m) and m.group(1) == ref)


FEW_SHOT = {"trec", "triviaqa", "samsum", "lsht"}
TASK_METRIC = {"hotpotqa": qa_f1, "triviaqa": qa_f1, "gov_report": rouge_l, "samsum": rouge_l, "passage_count": count,
               "passage_retrieval_en": retrieval, "lcc": code, "repobench-p": code,
               "passage_retrieval_zh": lambda p, r: retrieval(p, r, "段落"), "longbench_v2": choice}
out = []


def case(fn, pred, ref, score):
    out.append({"fn": fn, "pred": pred, "ref": ref, "score": score})


def task(name, pred, answers, classes=None):
    line = pred.lstrip("\n").split("\n")[0] if name in FEW_SHOT else pred
    if name in ("trec", "lsht"):
        score = max([classification(line, a, classes) for a in answers] + [0.0])
    else:
        score = max([TASK_METRIC[name](line, a) for a in answers] + [0.0])
    out.append({"task": name, "pred": pred, "answers": answers, "classes": classes, "score": score})


# ---- question answering ----
QA = [("", ""), ("", "x"), ("the", "a"), ("The Cat", "a cat"), ("the-cat", "thecat"), ("an apple a day", "apple day"),
      ("İstanbul", "i̇stanbul"), ("ΟΔΟΣ", "οδος"), ("ΟΔΟΣ ΣΑΣ'", "οδός σας"), ("ΑΣ.Β", "ασ.β"), ("ὈΔΥΣΣΕΎΣ", "ὀδυσσεύς"),
      ("a\u00a0b\u3000c\u2028d\x1ce\x85f", "b c d e f"), ("a_the", "the"), ("the\u0301 x", "x"), ("é", "É"),
      ("“quoted”", "quoted"), ("“quoted”", "“quoted”"), ("1–2", "12"), ("1-2", "12"), ("ＡＢＣ", "ａｂｃ"),
      ("x x x y", "x x y y y"), ("the the the", ""), ("٣ apples", "٣ Apples"), ("ǅ", "ǆ"), ("ẞ", "ß"), ("Ⅷ", "ⅷ"),
      ("A\u200bn", "a\u200bn"), ("an\u0600 x", "x"), ("the² y", "y"), ("\ud7ff\ue000", "\ud7ff\ue000")]
for p, r in QA:
    case("qa_f1", p, r, qa_f1(p, r))
VOCABULARY = ["the", "a", "an", "The", "AN", "cat", "Cat", "cat's", "dogs", "Σ", "ΣΑΣ", "İx", "42", "４２", "naïve", "…", "-",
              "théâtre", "\u3000", "\u00a0", "x.y", "(z)", "ß", "ẞ"]
for _ in range(120):
    p, r = (" ".join(rng.choices(VOCABULARY, k=rng.randint(0, 12))) for _ in range(2))
    case("qa_f1", p, r, qa_f1(p, r))

# ---- ROUGE-L ----
ROUGE = [("", ""), ("x", ""), ("...", "x"), (" . ", "a b"), (" ", " "), ("a b. .c", "a b . c"), ("a b c", "a b c"),
         ("b a", "a b"), ("a b a b", "b a b a"), ("a a a a", "a"), ("The cat.", "the cat"), ("a\u3000b\tc", "a b c"),
         ("x y z. u v", "u v. x y z"), ("a.b.c.d", "d.c.b.a"), ("a b c d e f", "f e d c b a"), ("3.14 is pi", "pi is 3.14"),
         ("a b x y", "x y a b"), ("one two. three four", "two one. four three"), ("a\u0085b", "a b"), ("a\x1fb", "a b")]
for p, r in ROUGE:
    case("rouge_l", p, r, rouge_l(p, r))
    case("rouge_l_plain", p, r, rouge_plain(p, r))
for size in (3, 6, 12, 40):
    for _ in range(60):
        p, r = ("".join(rng.choice("abcdefghij"[:size]) + rng.choice([" ", " ", " ", ". ", ".", "\n", ". . "])
                        for _ in range(rng.randint(0, size * 3))) for _ in range(2))
        case("rouge_l", p, r, rouge_l(p, r))
        case("rouge_l_plain", p, r, rouge_plain(p, r))

# ---- numbers ----
for p, r in [("", "5"), ("5", "5"), ("05", "5"), ("Paragraph 5 of 30", "5"), ("5 5 6", "5"), ("３", "3"), ("٣ and 3", "3"),
             ("12a12", "12"), ("²5", "5"), ("1,234", "1"), ("-5.5", "5"), ("1２3", "1２3"), ("no number", "5")]:
    case("count", p, r, count(p, r))
    case("retrieval", p, "Paragraph " + r, retrieval(p, "Paragraph " + r))
case("retrieval", "7", "Paragraph x Paragraph 7", 1.0)
task("passage_retrieval_zh", "段落3，段落4", ["段落3"])
task("passage_retrieval_en", "Paragraph 3", ["Paragraph 4", "Paragraph 3"])
task("passage_count", "There are 7 of 9", ["7"])

# ---- labels: the list that shrinks while it is iterated ----
LABELS = ["Date", "Definition of something", "Description of something", "Other entity", "Other number", "Other",
          "Human", "Human being", "Group of human", "number", "Distance", "Distance number"]
for p, a in [("Other number", "Other number"), ("Other", "Other number"), ("Other entity Other number", "Other number"),
             ("Distance number Human being", "Distance number"), ("Date", "Date"), ("date", "Date"), ("", "Date"),
             ("\n\nDate\nOther", "Date"), (" \nDate", "Date"), ("Human being", "Human being"),
             ("Other number Distance number", "Distance number"), ("Group of human", "Human")]:
    task("trec", p, [a], LABELS)
    task("trec", p, [a], LABELS[::-1])
    task("trec", p, [a], LABELS + LABELS)
    task("lsht", p, [a], ["Other", "number", "Other number", "r n"])
for _ in range(150):
    labels = ["".join(rng.choices("ab ", k=rng.randint(1, 4))) for _ in range(rng.randint(1, 8))]
    task("trec", "".join(rng.choices("ab \n", weights=[4, 4, 2, 1], k=rng.randint(0, 12))), [rng.choice(labels)], labels)

# ---- code ----
LONG = "value = compute(alpha, beta) + compute(gamma, delta); " * 5
for p, r in [("", ""), ("", "x"), ("x", ""), ("\n\n  return x", "  return x"), ("# note\nreturn x", "return x"),
             ("```python\nx = 1\n```", "x = 1"), ("// c\n\nint x;", "int x;"), ("#\n`\n//", ""), ("    x", "x"),
             ("x  # y\nz", "z"), ("a\rb", "a\rb"), ("é = ü", "e = u"), (LONG, LONG[:-3]), (LONG[3:], LONG),
             ("x" * 150, "x" * 210), ("x" * 230 + "y", "y" + "x" * 230), ("ab" * 120, "ba" * 120), ("abc" * 67, "cab" * 67),
             ("aaaaab", "bbbbba"), ("return self.value", "return self.values[0]"), ("abcd" * 49 + "abc", "bcda" * 50)]:
    case("code", p, r, code(p, r))
    case("code_indel", p, r, code_indel(p, r))
# Exact halves: 100 * R with the fraction .5, rounded to even.
for n, m in [(200, 1), (200, 3), (200, 5), (40, 1), (40, 3), (8, 1), (16, 1), (16, 3)]:
    p, r = "x" * m + "p" * (n // 2 - m), "x" * m + "q" * (n - n // 2 - m)
    case("code", p, r, code(p, r))
for length, alphabet in [(12, "ab"), (30, "abc"), (199, "abcdef"), (200, "abcdef"), (201, string.ascii_letters),
                         (260, string.printable[:60]), (420, "etaoin shrdlu_().,=[]")]:
    for _ in range(14):
        p = "".join(rng.choices(alphabet, k=rng.randint(1, length)))
        r = "".join(rng.choices(alphabet, k=length))
        if rng.random() < 0.5:   # a disturbed copy
            p = "".join(c if rng.random() < 0.85 else rng.choice(alphabet) for c in r)[rng.randint(0, 3):]
        p = p.translate({ord(c): "_" for c in "`#/\n\r\x0b\x0c"})
        case("code", p, r, code(p, r))
        case("code_indel", p, r, code_indel(p, r))
task("lcc", "\n    return a\n", ["    return a"])
task("repobench-p", "# x\n    return b", ["    return a"])

# ---- several references, first lines ----
task("hotpotqa", "The Eiffel Tower", ["Paris", "eiffel tower", "tower"])
task("triviaqa", "\n\nParis\nPassage: x", ["paris", "Lyon"])
task("triviaqa", " \nParis", ["paris"])
task("triviaqa", "Paris\r\nx", ["paris"])
task("samsum", "\nA b. C d\nDialogue: z", ["C d. A b"])
task("gov_report", "\nA b. C d\nDialogue: z", ["C d. A b", "A b"])

# ---- LongBench v2 ----
for p in ["The correct answer is (B).", "**The correct answer is (B)**", "The correct answer is B", "the correct answer is (B)",
          "The correct answer is (insert B)", "The correct answer is (E). The correct answer is (B)", "The correct answer is A "
          "but The correct answer is (B)", "The correct answer is *(*B*)*", "(B)", "", "The correct answer is BAD",
          "The correct answer is (B", "The correct answer is (b)", "The correct answer is\n(B)"]:
    task("longbench_v2", p, ["B"])

# ---- LongGenBench ----
GOLD = ["half of 36\n#### 18", "#### 3", "so 1,000\n#### 1,000", "#### 0.5"]
for p in ["Answer_9:\nIt is 18.\nThe answer is 18.\n\nAnswer_10:\nThe answer is 3.\n\nAnswer_11:\nThe answer is 1,000.\n\n"
          "Answer_12:\nThe answer is 0.5", "", "no colon", "Answer_9:\n18.0\n\nAnswer_10:\n-3\n", "Answer_9:\n\n\n18\n\nAnswer_10:\n3",
          "Answer_9:\n18\nAnswer_10:\n3\n\nAnswer_11:\n000", "Answer_9:\nnone\n\nAnswer_10:\nnone\n\nAnswer_11:\n$1000.\n\nAnswer_12:\n.5\n",
          "Here:\nAnswer_9:\n18\n\nAnswer_10:\n3", "a:\n\n\n\n\nb:\n18\n\n", "x:\n\n", "x:\n", "x:\n\n\n", "Answer_9:\r\n18\r\n\r\n",
          "Answer_9:\nQuestion: 18\n\nAnswer_10:\nA_gold: 3\n\nx:\nA_model: 5", "x:\n18\x85\n\ny:\n 3\u3000\n"]:
    out.append({"task": "longgenbench_gsm8k", "pred": p, "answers": GOLD, "classes": None, "score": batch(p, GOLD, False)})
    letters = ["B", "A", "D"]
    q = p.replace("18", "(B) is right").replace("3", "C")
    out.append({"task": "longgenbench_mmlu", "pred": q, "answers": letters, "classes": None, "score": batch(q, letters, True)})
for _ in range(60):
    p = "".join(rng.choices([":\n", "\n", "\n\n", "Answer_", "18", "3", ".", ",", "A", " x", "Question:", "A_model:"], k=rng.randint(0, 25)))
    out.append({"task": "longgenbench_gsm8k", "pred": p, "answers": GOLD, "classes": None, "score": batch(p, GOLD, False)})

with open(os.path.join(HERE, "metric_cases.jsonl"), "w", encoding="utf-8") as f:
    for row in out:
        f.write(json.dumps(row, ensure_ascii=True) + "\n")
print(len(out), "cases")
