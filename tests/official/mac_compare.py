#!/usr/bin/env python3
"""Decisions and outputs of mac and of its authors' kernel over chains of decoded tokens, query head by query head.

    MASKBENCH_OFFICIAL=FOLDER python3 tests/official/mac_compare.py

FOLDER holds a clone of the authors' repository under its own name (MAC-Attention). Needs torch and a GPU of compute
capability 9; the first call compiles their kernel through their own loader. build/tests/official/mac_play makes the
tensors and plays our method (make build/tests/official/mac_play). Nothing of theirs is copied.

Both sides start with an empty ring and decode the same tokens one after the other; each writes back what it will match
later. Compared for each token and query head: is it a hit, and with which stored token; and for each token and KV head
whether its prefix is read. Distances that a rounding to bf16 can turn (within 1 %) are counted apart. Then the outputs,
relative to their length; the last column is how far exact attention is away, which a wrong entry would show as.

Without MASKBENCH_OFFICIAL: says so and exits 0 without a count. Exit 1 when a decision or an output differs.
"""
import json, os, subprocess, sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLAY = os.path.join(ROOT, os.environ.get("BUILD", "build"), "tests/official/mac_play")
FOLDER = os.environ.get("MASKBENCH_OFFICIAL")
if not FOLDER:
    print("skipped: MASKBENCH_OFFICIAL names no folder with the authors' repositories")
    sys.exit(0)
REPOSITORY = os.path.join(FOLDER, "MAC-Attention")
sys.path[:0] = [os.path.join(REPOSITORY, "attention", part) for part in ("src", "tools")]
os.environ["MAC_CHECK_PARTIAL_BF16"] = "0"  # the narrowest of their settings
import torch

SEEDS = range(1, 1 + int(os.environ.get("SEEDS", 4)))
TOKENS, PREFIX, DIM, NEAR = 40, 96, 128, 0.01
TOLERANCE = 0.03  # of an output's length: their partial results and entries are bf16


def play(settings, kv_heads, group, seed):
    out = subprocess.run([PLAY, settings, f"{kv_heads} {group} {TOKENS} {PREFIX} {seed}"], capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"mac {settings}: {out.stderr.strip()}")
    return json.loads(out.stdout)


class Theirs:
    """Their ring of one request, and their kernel on it."""

    def __init__(self, check, shown, ring, amend, threshold):
        self.check, self.amend, self.threshold = check, amend, threshold
        self.heads, self.kv_heads, slots = shown["query_heads"], shown["kv_heads"], shown["slots"]
        half = dict(device="cuda", dtype=torch.bfloat16)
        cache = lambda name: torch.tensor(shown[name]).view(self.kv_heads, slots, DIM).transpose(0, 1).contiguous().to(**half)
        self.k, self.v = cache("k"), cache("v")
        self.queries = torch.full((1, ring, self.heads, DIM), 100.0, **half)  # far from everything
        self.entries = torch.zeros_like(self.queries)
        self.lse = torch.full((1, ring, self.heads), -float("inf"), device="cuda")

    def decode(self, token):
        """Hits, matched positions, group modes and outputs of one token."""
        n = token["position"]
        half = dict(device="cuda", dtype=torch.bfloat16)
        row = lambda name, heads: torch.tensor(token[name]).view(heads, DIM).to(**half)
        k, v = self.k[:n + 1].clone(), self.v[:n + 1].clone()
        k[n], v[n] = row("k", self.kv_heads), row("v", self.kv_heads)
        integers = lambda values, dtype=torch.int32: torch.tensor(values, device="cuda", dtype=dtype)
        table = torch.zeros(1, 256, device="cuda", dtype=torch.int32)
        table[0, :n] = torch.arange(n, device="cuda", dtype=torch.int32)
        out, _, work = self.check._run_ext(
            self.extension(), row("q", self.heads)[None], k, v, table, integers([0]), integers([n]),
            integers([n], torch.int64), self.queries, self.entries, self.lse, 256, 32, 32, self.amend + 1,
            threshold=self.threshold, q_pre=row("q_pre", self.heads)[None])
        return work[3][0].tolist(), work[5][0].tolist(), work[15][0].tolist(), out[0].float().cpu()

    def extension(self):
        return self.check.load_mac_persistent_decode_extension(False)


def near(distances, limit):
    """Can a rounding turn the nearest, or whether it is a hit?"""
    order = sorted(distances)
    return not order or abs(order[0] - limit) < NEAR * limit or (len(order) > 1 and order[1] - order[0] < NEAR * order[0])


def chain(check, settings, shown, ring, amend, threshold, keep, count):
    theirs, heads = Theirs(check, shown, ring, amend, threshold), shown["query_heads"]
    group = heads // shown["kv_heads"]
    limit = 2 * DIM * (1 - threshold) ** 2
    before = []  # their positions and q_pre, of tokens in the ring
    parted = set()  # (head, position) of entries that come from different queries since a tie
    for i, token in enumerate(shown["tokens"]):
        hit, position, mode, out = theirs.decode(token)
        q = torch.tensor(token["q_pre"]).view(heads, DIM)
        ours, exact = (torch.tensor(token[name]).view(heads, DIM) for name in ("out", "exact"))
        for a in range(heads):
            read = token["active"][a // group] != 0
            own = not token["missed"][a] and (keep or not read)
            age = (i - token["slot"][a]) % ring or ring
            same = own == bool(hit[a]) and (not own or position[a] == token["position"] - age)
            # Where a group is refreshed, any of its heads can turn it.
            those = [a] if keep else range(a // group * group, a // group * group + group)
            if same:
                count["equal"] += 1
                count["hits"] += own
            elif any(near([float(((q[b] - p[b]) ** 2).sum()) for p in before], limit) for b in those):
                count["ties"] += 1
            else:
                count["different"] += 1
                print(f"  {settings} token {i} head {a}: ours {'hit' if own else 'miss'} of {token['position'] - age}, "
                      f"theirs {'hit' if hit[a] else 'miss'} of {position[a]}")
            if not same or (own and (a, position[a]) in parted):
                parted.add((a, token["position"]))
            length = float(ours[a].norm())
            error, miss = float((ours[a] - out[a]).norm()) / length, float((ours[a] - exact[a]).norm()) / length
            if (a, token["position"]) not in parted:
                count["outputs"] += 1
                count["worst"] = max(count["worst"], error)
                count["wrong"] += error > TOLERANCE
                count["away"].append(miss)
        for h, theirs_mode in enumerate(mode):
            hits = sum(hit[h * group:(h + 1) * group])
            if {0: group, 1: 0}.get(theirs_mode, hits) != hits:
                sys.exit(f"{settings}: their group mode {theirs_mode} has {hits} hits")
            count["groups"] += 1
            count["groups equal"] += (token["active"][h] != 0) == (theirs_mode != 0)
        before = (before + [q])[-ring:]


def main():
    if not os.path.isdir(REPOSITORY):
        print(f"mac: skipped, MAC-Attention is not in {FOLDER}")
        return 0
    import check_mac_persistent_decode as check
    commit = subprocess.run(["git", "-C", REPOSITORY, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    print(f"MAC-Attention {commit.stdout.strip() or 'no commit'}, {torch.cuda.get_device_name()}")
    failed = 0
    print("group mixed   ring amend threshold  decisions  equal  ties  differ   hits | groups equal | outputs worst error"
          "  over 3 %  exact is away (median, most)")
    for group, kv_heads in ((4, 2), (8, 1)):
        for mixed in ("keep", "refresh"):
            os.environ["MAC_PERSISTENT_MIXED_GROUP_FALLBACK"] = "1" if mixed == "keep" else "0"
            for ring, amend, threshold in ((16, 7, 0.33), (64, 15, 0.36), (8, 3, 0.3), (16, 31, 0.2)):
                count = dict.fromkeys(("equal", "ties", "different", "hits", "outputs", "worst", "wrong", "groups",
                                       "groups equal"), 0)
                count["away"] = []
                for seed in SEEDS:
                    settings = f"axis=blocks ring={ring} match=any mixed={mixed} amend={amend} threshold={threshold}"
                    chain(check, settings, play(settings, kv_heads, group, seed), ring, amend, threshold, mixed == "keep",
                          count)
                total = count["equal"] + count["ties"] + count["different"]
                away = sorted(count["away"])
                print(f"{group:5} {mixed:7} {ring:4} {amend:5} {threshold:9} {total:10} {count['equal']:6} {count['ties']:5} "
                      f"{count['different']:7} {count['hits']:6} | {count['groups equal']:5} of {count['groups']} | "
                      f"{count['outputs']:7} {100 * count['worst']:9.2f} % {count['wrong']:8}  "
                      f"{100 * away[len(away) // 2]:.1f} % {100 * away[-1]:.1f} %")
                failed += count["different"] + count["wrong"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
