#!/usr/bin/env python3
"""An adapter that ./harness train wrote, in `peft` over its base, against the folder that it was merged into: logits of
`transformers`, fp32, and those of this program.

    python3 tests/training/adapter_reference.py

Needs torch, transformers and peft; without them it says so and exits 0. Five steps on the embedded model."""
import os, subprocess, sys, tempfile

try:
    import torch, transformers, peft
except ImportError as missing:
    sys.exit(print(f"skipped: {missing}"))

HERE = os.path.dirname(os.path.abspath(__file__))
os.chdir(os.path.join(HERE, "..", ".."))
ALLOWED = 1e-4

with tempfile.TemporaryDirectory() as scratch:
    out = os.path.join(scratch, "out")
    sets = dict(start="checkpoint", lengths="[128]", tails="[128]", tokens=256, steps=5, lr=0.01, warmup=0, type="f32", threads=1,
                lora_rank=4, lora_alpha=8, out=out, results=os.path.join(scratch, "steps.db"))
    subprocess.run(["./harness", "train", "--quiet", "--config", "configs/train_tiny.json"] + [x for k, v in sets.items() for x in ("--set", f"{k}={v}")], check=True)
    load = lambda folder: transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(0, 2000, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        base = load("models/tiny")(ids).logits
        merged = load(out)(ids).logits
        adapted = peft.PeftModel.from_pretrained(load("models/tiny"), os.path.join(out, "adapter")).eval()
        there = adapted(ids).logits
    apart, moved = (merged - there).abs().max().item(), (merged - base).abs().max().item()
    tensors = sum("lora_" in name for name, _ in adapted.named_parameters())
    good = apart <= ALLOWED * base.abs().max().item() and moved > 100 * apart and tensors == 2 * 7 * 6
    print(f"{'ok ' if good else 'BAD'} peft {peft.__version__}, transformers {transformers.__version__}: {tensors} tensors of the adapter; logits of the merged "
          f"folder and of peft differ by at most {apart:.1e} of {base.abs().max().item():.1f}; training moved them by {moved:.1e}")
    sys.exit(0 if good else 1)
