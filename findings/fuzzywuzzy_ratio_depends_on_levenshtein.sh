#!/usr/bin/env bash
# fuzzywuzzy 0.18.0 warns that without python-Levenshtein it uses a "slow pure-python SequenceMatcher". The package changes
# more than speed: fuzz.ratio() is computed by another algorithm, so scores differ. On LongBench's lcc
# the published predictions of Llama-3-8B get 63.2 without it and 64.9 with it. LongBench's code
# metric (lcc, repobench-p) is this ratio, and neither LongBench nor lm-eval 0.4.13 nor kvpress 0.5.5 says whether
# python-Levenshtein belongs to its requirements.
# Seen on 2026-12-01 with fuzzywuzzy 0.18.0 and Levenshtein 0.27.5 on Python 3.11:
#   without: 43 32   with: 45 36
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat >"$scratch/ratio.py" <<'PY'
import warnings
warnings.simplefilter("ignore")
from fuzzywuzzy import fuzz
print(fuzz.ratio("        number = self.count(rows, columns)", "        self.table = make_table(width, height)"),
      fuzz.ratio("    draw(left, top, right, bottom)", "    total = sum(sizes)"))
PY
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" -q install fuzzywuzzy==0.18.0
without=$("$scratch/venv/bin/python" "$scratch/ratio.py")
"$scratch/venv/bin/pip" -q install python-Levenshtein==0.27.5
with=$("$scratch/venv/bin/python" "$scratch/ratio.py")
echo "without: $without   with: $with"
[ "$without" = "43 32" ] && [ "$with" = "45 36" ]
