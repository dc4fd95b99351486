#!/usr/bin/env bash
# Hugging Face tokenizers 0.23.3 has two versions of Unicode inside. Its regex engine, which splits text into words and
# digits, knows Unicode 16; its NFC normaliser ends at Unicode 9 (2016). A combining mark that is younger keeps its
# place, lets no mark pass, and a letter of Unicode 13 is not composed: Python's unicodedata gives another text, and so
# other token ids, for the same NFC. A tokenizer written over one Unicode library cannot be equal to it.
#     bash findings/tokenizers_has_two_unicode_versions.sh
# Seen (exit 0 while it is so):
#     regex: U+10D40 (Unicode 16.0) is a number, U+2EBF0 (15.1) a letter, U+11DE0 (17.0) is neither
#     NFC: U+1DFB (9.0) changes places, U+1DF6 (10.0) does not; 120 marks differ from Unicode 16
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q tokenizers==0.23.3 unicodedata2==16.0.0
"$work/env/bin/python" - <<'END'
import unicodedata2 as ucd
from tokenizers import Regex, normalizers, pre_tokenizers

nfc = normalizers.NFC().normalize_str


def inside(c, name):
    pieces = pre_tokenizers.Split(Regex(r"\p{%s}" % name), "isolated").pre_tokenize_str(c + c)
    return len(pieces) == 2


regex = (inside("\U00010d40", "N"), inside("\U0002ebf0", "L"), inside("\U00011de0", "N"))
print("regex: U+10D40 a number %s, U+2EBF0 a letter %s, U+11DE0 a number %s" % regex)
old, young = nfc("a\u1dfb\u0334") == "a\u0334\u1dfb", nfc("a\u1df6\u0334") == "a\u0334\u1df6"
print("NFC: U+1DFB changes places %s, U+1DF6 changes places %s" % (old, young))
marks = [c for c in map(chr, range(0x110000)) if ucd.combining(c)]
differ = sum(any(nfc(t) != ucd.normalize("NFC", t) for t in
                 ("a" + c + "\u0334", "a" + c + "\u0316", "a\u0301" + c, "a\u0334" + c, "a" + c + "\u0301",
                  "q" + c + "\u05b0", "q\u0345" + c)) for c in marks)
print("NFC: %d of %d marks of Unicode %s are placed otherwise" % (differ, len(marks), ucd.unidata_version))
assert regex == (True, True, False) and old and not young and differ == 120
END
