#!/usr/bin/env bash
# transformers 5.24.0: "rope_scaling" added to a config.json that transformers 5 wrote loses theta.
#
# transformers 5 saves theta in "rope_parameters". Model cards of Qwen3 and others tell to add "rope_scaling" to
# config.json for longer texts. With both keys "rope_scaling" replaces "rope_parameters" as a whole: theta is then the
# class's default, 10000, in place of the checkpoint's 1000000, and no warning says so. With theta inside of
# "rope_scaling", or at the top level, it is kept.
#
# Seen on 2026-11-30 with Python 3.11: exit 0 and the four lines below. Exit 1: the behaviour has changed.
#   saved by 5.24:         rope_parameters {'rope_theta': 1000000.0, 'rope_type': 'default'}
#   with rope_scaling:     theta 10000.0, type yarn
#   theta in rope_scaling: theta 1000000.0, type yarn
#   theta at the top:      theta 1000000.0, type yarn
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q transformers==5.24.0
"$work/venv/bin/python" - "$work" <<'PY'
import json, sys
from transformers import AutoConfig, Qwen3Config

folder = sys.argv[1]
Qwen3Config(rope_parameters={"rope_type": "default", "rope_theta": 1e6}).save_pretrained(folder)
saved = json.load(open(folder + "/config.json"))
print("saved by 5.24:         rope_parameters", saved["rope_parameters"])
yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def load(**keys):
    json.dump({**saved, **keys}, open(folder + "/config.json", "w"))
    rope = AutoConfig.from_pretrained(folder).rope_parameters
    return rope["rope_theta"], rope["rope_type"]


seen = [load(rope_scaling=yarn), load(rope_scaling={**yarn, "rope_theta": 1e6}), load(rope_scaling=yarn, rope_theta=1e6)]
for what, (theta, kind) in zip(("with rope_scaling:    ", "theta in rope_scaling:", "theta at the top:     "), seen):
    print(what, f"theta {theta}, type {kind}")
sys.exit(seen != [(10000.0, "yarn"), (1e6, "yarn"), (1e6, "yarn")])
PY
