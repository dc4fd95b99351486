"""compare_reference.py - ids of the tokenizer against Hugging Face tokenizers; run by check_reference.sh.

    compare_reference.py ENCODE_TEXTS [FOLDER...]

1. General categories and \\s: patterns that take a different number of equal characters for each of them, and
   merges that show where a piece ends; every code point.
2. NFC: every code point alone, between marks of low and high class, before and behind marks and letters.
3. 20,000 odd strings (seed 1) with the tokenizer of each FOLDER: ids, and the text that they decode to.
Nothing is left out. Exit 1 when anything differs.
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

import tokenizers
from tokenizers import Tokenizer

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+")
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
STRINGS = 20000
BATCH = 20000


def alphabet():
    """byte -> the character that stands for it in the files"""
    same = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in same}
    table.update({b: chr(0x100 + i) for i, b in enumerate(b for b in range(256) if b not in table)})
    return table


def byte_level(pattern, nfc, merges):
    """tokenizer.json of the 256 bytes and the given merges of two bytes"""
    letters = alphabet()
    pairs = [[letters[a], letters[b]] for a, b in merges]
    vocab = {letters[b]: b for b in range(256)}
    vocab.update({a + b: 256 + i for i, (a, b) in enumerate(pairs)})
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": {"type": "NFC"} if nfc else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
            "post_processor": None, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                      "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": vocab, "merges": pairs}}


def ours(program, folder, texts, decode):
    data = b"".join(struct.pack("=I", len(t)) + t for t in (text.encode() for text in texts))
    command = [program, folder] + (["decode"] if decode else [])
    out = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    at, result = 0, []
    for _ in texts:
        n, = struct.unpack_from("=I", out, at)
        ids = list(struct.unpack_from("=%di" % n, out, at + 4))
        at += 4 + 4 * n
        text = None
        if decode:
            n, = struct.unpack_from("=I", out, at)
            text = out[at + 4:at + 4 + n].decode()
            at += 4 + n
        result.append((ids, text))
    return result


def compare(program, folder, texts, decode=False):
    """Texts whose ids (or text of the ids) differ."""
    reference = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    begin = len(reference.encode("").ids)  # ours leaves out what stands in front of every text
    bad = []
    for i in range(0, len(texts), BATCH):
        part = texts[i:i + BATCH]
        encoded = reference.encode_batch_fast(part, add_special_tokens=True)
        for text, theirs, (ids, back) in zip(part, encoded, ours(program, folder, part, decode)):
            same = theirs.ids[begin:] == ids and (not decode or reference.decode(ids, skip_special_tokens=True) == back)
            if not same:
                bad.append(text)
    return bad


def with_made(tokenizer, program, texts):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "tokenizer.json"), "w") as file:
            json.dump(tokenizer, file)
        return compare(program, folder, texts)


def in_batches(make, size=64):
    """One text for `size` code points: a call a character would take an hour."""
    return ["".join(make(chr(c)) for c in POINTS[i:i + size]) for i in range(0, len(POINTS), size)]


def classes(program):
    """29 categories need two numbers of 1 to 6: one pattern for each."""
    inside = [(a, b) for a in range(0x80, 0xC0) for b in range(0xC2, 0xF5)] + [(a, a) for a in range(0x80)]
    texts = in_batches(lambda c: c * 6 + ("\n" if c != "\n" else " "), 16)
    counted = [(name, i // 6 + 1, i % 6 + 1) for i, name in enumerate(CATEGORIES)]
    patterns = [("categories, first", "|".join(r"\p{%s}{%d}" % (name, a) for name, a, _ in counted) + r"|.|\n"),
                ("categories, second", "|".join(r"\p{%s}{%d}" % (name, b) for name, _, b in counted) + r"|.|\n"),
                (r"\p{L}, \p{N}, \s, rest", r"\p{L}{2}|\p{N}{3}|\s{4}|[^\s\p{L}\p{N}]{5}|.|\n")]
    wrong = 0
    for name, pattern in patterns:
        bad = with_made(byte_level(pattern, False, inside), program, texts)
        print("%s, over %d code points: %d texts of 16 differ" % (name, len(POINTS), len(bad)), flush=True)
        wrong += len(bad)
    return wrong


def nfc(program):
    probes = [("alone", lambda c: c + "\n"), ("between marks of one class", lambda c: "a\u0334" + c + "\u0334\n"),
              ("behind a high class", lambda c: "q\u0345" + c + "\n"), 
              ("before a low one", lambda c: "e" + c + "\u0334\u0301\n"),
              ("behind a letter", lambda c: "a" + c + "\u0301\n"),
              ("before a mark", lambda c: c + "\u0300\u0338\n"),
              ("Hangul around", lambda c: "\u1100" + c + "\u1161\u11a8" + c + "\uac00" + c + "\n")]
    wrong = 0
    for name, make in probes:
        bad = with_made(byte_level(QWEN, True, []), program, in_batches(make))
        print("NFC, %s, over %d code points: %d texts of 64 differ" % (name, len(POINTS), len(bad)), flush=True)
        wrong += len(bad)
    # Each pair that composes or could: what characters decompose to under a later Unicode, too.
    apart = [(chr(c), unicodedata.normalize("NFD", chr(c))) for c in POINTS]
    pairs = [parts for whole, parts in apart if parts != whole]
    bad = with_made(byte_level(QWEN, True, []), program, pairs)
    print("NFC of %d decompositions: %d differ" % (len(pairs), len(bad)))
    return wrong + len(bad)


def odd_strings(added):
    """Pieces that tokenizers trip over, joined at random."""
    rng = random.Random(1)
    marks = [c for c in POINTS if unicodedata.combining(chr(c))]
    plain = ["'s", "'S", "'\u017f", "'RE", "'ll", "'T", " ", "  ", "\t", "\n", "\r\n", "\r", "\x00", "\x1c",
             "\x85", "\xa0", "\u180e", "\u2028", "\u3000", "\ufeff", "\u200d", "0", "12", "\u0663", "\u00bd", "\u2163",
             "a", "Zx", "word", "The ", "\u00df", "\u0130", "\u01c5", "\u212a", "\u4f60\u597d", "\uac00",
             "\u1100\u1161\u11a8", "!", "...", "_", "{}", "<|", "|>", "\U0001f600", "\U0001f44d\U0001f3fd", "\U0001d2c0",
             "\U00031350", "\U0002ebf0", "\u0e01\u0e33", "\ufb01"]
    out = []
    for _ in range(STRINGS):
        text = ""
        for _ in range(rng.randint(1, 14)):
            kind = rng.random()
            if kind < 0.45:
                text += rng.choice(plain)
            elif kind < 0.60:
                text += chr(rng.choice(marks))
            elif kind < 0.70:
                text += chr(rng.choice(POINTS))
            elif kind < 0.85:
                text += chr(rng.randrange(0x20, 0x3000))
            elif added and kind < 0.95:
                token = rng.choice(added)
                text += token if rng.random() < 0.7 else token[:rng.randint(1, len(token))]
            else:
                text += chr(rng.randrange(0xA000, 0xD7FC))
        out.append(text)
    return out


def main():
    program, folders = sys.argv[1], sys.argv[2:]
    print("tokenizers", tokenizers.__version__)
    wrong = classes(program) + nfc(program)
    for folder in folders:
        with open(os.path.join(folder, "tokenizer.json")) as file:
            added = [entry["content"] for entry in json.load(file)["added_tokens"]]
        bad = compare(program, folder, odd_strings(added), decode=True)
        print("%s: %d of %d odd strings differ" % (folder, len(bad), STRINGS), *[ascii(b) for b in bad[:5]])
        wrong += len(bad)
    print("%d differ in all" % wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
