"""common.py - what the comparisons with the authors' code share: a folder of their code as a package, tiny checkpoints of
their classes with random weights, our program on token ids, and the count of what is equal.

Nothing of that code is kept here: an environment variable names a folder with it. Needs Python with numpy, torch,
transformers 4.53 (none of this code imports under 5), safetensors and einops; MASKBENCH_HARNESS names the program to
compare (default ./harness). Everything runs on one CPU thread, in fp32 unless MASKBENCH_OFFICIAL_TYPE=f16.
"""
import importlib, json, os, subprocess, sys, tempfile, types

HARNESS = os.environ.get("MASKBENCH_HARNESS", "./harness")
TYPE = os.environ.get("MASKBENCH_OFFICIAL_TYPE", "f32")  # f16: sdar.py alone
TOKENIZER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "model", "fixtures", "bpe", "tokenizer.json")


def folder_or_skip(variable, what):
    """The folder that the variable names; without it the script says so and ends. That is no success: nothing ran."""
    folder = os.environ.get(variable)
    if not folder:
        print(f"skipped: {variable} names no folder with {what}")
        sys.exit(0)
    if not os.path.isdir(folder):
        sys.exit(f"{variable}: {folder} is no folder")
    return folder


def load_package(folder, name, stand_ins=()):
    """The modules of a folder as a package, so that their relative imports work. stand_ins: (module, {name: value})."""
    for module, members in stand_ins:
        if module not in sys.modules:
            made = types.ModuleType(module)
            made.__spec__ = importlib.machinery.ModuleSpec(module, None)
            made.__dict__.update(members)
            sys.modules[module] = made
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package
    return lambda module: importlib.import_module(f"{name}.{module}")


def sharpen(model, torch, seed, scale, mask):
    """Random weights whose probabilities spread over (0, 1): a new network's are all alike. The mask token is never
    predicted, as by a trained model: theirs writes it, which leaves the slot masked, ours takes no such token."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.35 if "embed" in name else 1.2 / parameter.shape[-1] ** 0.5)
            elif "norm" in name:
                parameter.uniform_(0.7, 1.3)
            else:
                parameter.normal_(0, 0.1)
        for name, parameter in model.named_parameters():
            if name == "lm_head.weight":
                parameter.mul_(scale)
                parameter[mask] = 0
    return model.eval().float()


def save(model, config, folder, drop=()):
    """config.json, weights and a tokenizer as a downloaded folder has them."""
    from safetensors.torch import save_file
    os.makedirs(folder, exist_ok=True)
    tensors = {k: v.contiguous().clone() for k, v in model.state_dict().items() if k not in drop}
    save_file(tensors, os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    if not os.path.exists(os.path.join(folder, "tokenizer.json")):
        os.symlink(os.path.abspath(TOKENIZER), os.path.join(folder, "tokenizer.json"))


def run(arguments):
    done = subprocess.run([HARNESS, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout, done.stderr


def ids_file(ids):
    path = os.path.join(tempfile.gettempdir(), f"official-{os.getpid()}.ids")
    with open(path, "w") as file:
        file.write(" ".join(map(str, ids)))
    return path


def our_logits(folder, ids, flags=()):
    import numpy
    out = os.path.join(tempfile.gettempdir(), f"official-{os.getpid()}.npy")
    run(["logits", "--model", folder, "--ids", ids_file(ids), "--out", out, "--type", TYPE, "--threads", "1", "--quiet", *flags])
    return numpy.load(out)


def our_tokens(folder, ids, new, flags=()):
    """New tokens, number of denoising and of commit forwards, edits."""
    out, err = run(["generate", "--model", folder, "--ids", ids_file(ids), "--max-new-tokens", str(new), "--type", TYPE,
                    "--threads", "1", *flags])
    words = err.split()
    at = words.index("forwards,")
    edits = int(words[words.index("written") - 1]) if "written" in words else 0
    return [int(word) for word in out.split()], int(words[at - 3]), int(words[at - 1]), edits


class Count:
    """Forwards of a model, by what the call says about itself."""

    def __init__(self, model, kind):
        self.kind, self.counts, self.inner = kind, {}, model.forward
        model.forward = self.forward

    def forward(self, *args, **kwargs):
        kind = self.kind(args, kwargs)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.inner(*args, **kwargs)

    def take(self):
        counts, self.counts = self.counts, {}
        return counts


class Tally:
    """What came out, and whether all of it is equal."""

    def __init__(self, name):
        self.name, self.largest, self.scale, self.sequences, self.rows, self.close = name, 0.0, 0.0, 0, {}, set()

    def logits(self, ours, theirs):
        import numpy
        self.largest = max(self.largest, float(numpy.abs(ours - theirs).max()))
        self.scale = max(self.scale, float(numpy.abs(theirs).max()))
        self.sequences += 1

    def tokens(self, group, ours, theirs, note="", noise=False):
        """noise: a decision was so close that either is right; it is counted apart and may differ."""
        equal, total = self.rows.get(group, (0, 0))
        self.rows[group] = (equal + (ours == theirs), total + 1)
        if noise:
            self.close.add(group)
        elif ours != theirs:
            print(f"{self.name}, {group}: differs{note}\n  ours   {ours}\n  theirs {theirs}")

    def end(self):
        if self.sequences:
            print(f"{self.name}: logits of {self.sequences} sequences within {self.largest:.1e}, the largest is {self.scale:.1f}")
        for group, (equal, total) in self.rows.items():
            print(f"{self.name}, {group}: {equal} of {total} equal")
        wrong = any(equal != total for group, (equal, total) in self.rows.items() if group not in self.close)
        return int(wrong or self.largest > (1e-4 if TYPE == "f32" else 1e-2) * max(self.scale, 1.0))
