#!/usr/bin/env python3
"""Writes jieba/dict.txt, jieba/finalseg/prob_*.py and jieba_cases.jsonl: a small made-up dictionary and HMM, texts,
and how jieba 0.42.1 cuts them with those tables. Needs `pip install jieba==0.42.1`.
    python3 tests/datasets/make_jieba_cases.py
"""
import json
import os
import random
import tempfile

import jieba
from jieba import finalseg

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)))
rng = random.Random(7)
HAN = "天地人日月山水火木金土上下大小中王田石"
WORDS = {"天地": 50, "天地人": 5, "日月": 40, "山水": 30, "火山": 60, "山": 900, "水": 800, "大": 3000, "小": 2500, "人": 4000,
         "大人": 300, "小人": 200, "大小": 100, "大小人": 2, "中": 700, "王田石": 9, "金木水火土": 12, "上下": 70, "上": 90,
         "C++": 3, "T恤": 4, "3.5": 2, "AT&T": 3, "天": 0, "地人": 7, "水火": 33, "土石": 5, "田": 1, "王": 1}
folder = os.path.join(HERE, "jieba", "finalseg")
os.makedirs(folder, exist_ok=True)
with open(os.path.join(HERE, "jieba", "dict.txt"), "w", encoding="utf-8") as f:
    for i, (word, n) in enumerate(WORDS.items()):
        f.write(f"{word} {n}{' n' if i % 2 else ''}\n")
start = {"B": -0.3, "E": finalseg.MIN_FLOAT, "M": finalseg.MIN_FLOAT, "S": -1.4}
trans = {"B": {"E": -0.5, "M": -0.9}, "E": {"B": -0.6, "S": -0.8}, "M": {"E": -0.3, "M": -1.2}, "S": {"B": -0.7, "S": -0.6}}
emit = {s: {c: -rng.uniform(2, 9) for c in HAN if rng.random() < 0.8} for s in "BEMS"}
emit["B"]["石"] = emit["S"]["石"] = -5.0
for name, value in (("start", start), ("trans", trans), ("emit", emit)):
    with open(os.path.join(folder, f"prob_{name}.py"), "w", encoding="utf-8") as f:
        f.write("from __future__ import unicode_literals\n\nP=" + ascii(value) + "\n")
finalseg.start_P, finalseg.trans_P, finalseg.emit_P = start, trans, emit

tokenizer = jieba.Tokenizer(os.path.join(HERE, "jieba", "dict.txt"))
tokenizer.cache_file = os.path.join(tempfile.mkdtemp(), "cache")
texts = ["", "天", "天地", "天地人大小人", "王田石王田石", "上下山水C++T恤3.5元AT&T", "a1.5%b2..3%%", "大人 小人\r\n日月\r\t\u3000x",
         "石石石石", "田王田王", "《天地》，“日月”。", "5.天", "12.34.56%", "+#&._%-", "a.b", "9.％", "鿕鿖龥", "天\u00a0地", "é天É地",
         "火山水火土石天", "1天2地3", "😀天😀", "x\x1cy", "Ａ天"]
pieces = list(HAN) + list(WORDS) + ["a", "B7", "3.14", "%", ".", " ", "，", "\n", "龥", "é", "+"]
for _ in range(300):
    texts.append("".join(rng.choices(pieces, k=rng.randint(1, 25))))
for _ in range(100):
    texts.append("".join(rng.choices(HAN, k=rng.randint(1, 30))))
with open(os.path.join(HERE, "jieba_cases.jsonl"), "w", encoding="utf-8") as f:
    for text in texts:
        f.write(json.dumps({"text": text, "tokens": list(tokenizer.cut(text, cut_all=False, HMM=True))}) + "\n")
print(len(texts), "texts")
