#!/usr/bin/env python3
"""Text that a base model writes about itself: what configs/train_smol.json trains on, so that no corpus is needed.

    make model-smol
    python3 tools/smol_text.py --model models/smol --out results/smol_text.jsonl --texts 20000
    ./harness train --config configs/train_smol.json

Needs torch and transformers; a GPU for more than a try. A line is {"text": prompt and sampled answer, with the marks of the
chat template}. Three kinds in turn: answers to requests about drawn words, continuations of drawn openings, questions over a
document of drawn facts. A batch is a function of (--seed, its number): the same command goes on where it ended."""
import argparse, json, os, random, sys

HERE = os.path.dirname(os.path.abspath(__file__))
REQUESTS = ("Explain in a few sentences why a {a} {n} might {v}.", "Write a short story about a {a} {n} and {p}.",
            "List five things that one can do with a {n}.", "What is the difference between a {n} and a {m}?",
            "Write a letter from {p} to a friend about a {a} {n}.", "Give step by step instructions for a {a} {n}.",
            "Summarise what you know about a {n} in one paragraph.", "Write a dialogue between {p} and a {n}.")
OPENINGS = ("The {a} {n} had been there for as long as {p} could remember.", "Nobody in the village believed that a {n} could {v}.",
            "There are three reasons why a {a} {n} matters.", "{p} opened the door and saw a {a} {n}.")


def read_words():
    """the lists of the needle generator, by name"""
    lists, name = {}, None
    for line in open(os.path.join(HERE, "..", "training", "words.txt")):
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            name = lists.setdefault(line[1:-1], [])
        elif name is not None:
            name += line.split()
    return lists


def draw_prompt(kind, draw, words, facts):
    """the user's message, and the beginning of the answer"""
    pick = lambda name: draw.choice(words[name])
    fields = lambda: dict(a=pick("adjectives"), n=pick("nouns"), m=pick("nouns"), v=pick("verbs"), p=pick("names"))
    if kind == 0:
        return draw.choice(REQUESTS).format(**fields()), ""
    if kind == 1:
        opening = draw.choice(OPENINGS).format(**fields())
        return "Continue this text: " + opening, opening
    lines = [(pick("names"), pick("attributes"), pick("adjectives"), pick("nouns")) for _ in range(draw.randint(4, facts))]
    who, what, _, _ = draw.choice(lines)
    text = " ".join(f"The {attribute} of {name} is a {adjective} {noun}." for name, attribute, adjective, noun in lines)
    return f"{text}\n\nWhat is the {what} of {who}? Answer from the text alone and say where it stands.", ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/smol")
    parser.add_argument("--out", default="results/smol_text.jsonl")
    parser.add_argument("--texts", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=512, help="most of an answer")
    parser.add_argument("--facts", type=int, default=80, help="most of a document")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", help="cuda where there is one")
    a = parser.parse_args()
    try:
        import torch, transformers
    except ImportError as missing:
        sys.exit(f"smol_text: {missing}: install torch and transformers")
    if not os.path.exists(os.path.join(a.model, "config.json")):
        sys.exit(f"smol_text: {a.model} is no checkpoint folder: run make model-smol first")
    device = a.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    tokenizer = transformers.AutoTokenizer.from_pretrained(a.model, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=dtype).to(device).eval()
    words, lines = read_words(), []
    if os.path.exists(a.out):  # whole batches stay; a line that a kill cut goes with its batch
        lines = open(a.out).read().splitlines(keepends=True)
        lines = [line for line in lines if line.endswith("\n")]
        lines = lines[:len(lines) // a.batch * a.batch]
    os.makedirs(os.path.dirname(a.out) or ".", exist_ok=True)
    with open(a.out + ".new", "w") as file:
        file.writelines(lines)
    os.replace(a.out + ".new", a.out)
    with open(a.out, "a") as file:
        for number in range(len(lines) // a.batch, -(-a.texts // a.batch)):
            draw = random.Random(f"{a.seed}:{number}")
            torch.manual_seed(a.seed * 1000003 + number)
            prompts = []
            for i in range(a.batch):
                asked, begun = draw_prompt((number * a.batch + i) % 3, draw, words, a.facts)
                prompts.append(tokenizer.apply_chat_template([dict(role="user", content=asked)], tokenize=False, add_generation_prompt=True) + begun)
            fed = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(device)
            with torch.no_grad():
                out = model.generate(**fed, max_new_tokens=a.tokens, do_sample=True, temperature=a.temperature, top_p=a.top_p, top_k=0, pad_token_id=tokenizer.pad_token_id)
            for prompt, row in zip(prompts, out):
                ids = row[fed["input_ids"].shape[1]:].tolist()
                ends = [i for i, token in enumerate(ids) if token == tokenizer.eos_token_id]
                answer = tokenizer.decode(ids[:ends[0] + 1] if ends else ids, skip_special_tokens=False)
                file.write(json.dumps(dict(text=prompt + answer)) + "\n")
            file.flush()
            print(f"{(number + 1) * a.batch} of {a.texts} texts", file=sys.stderr)


if __name__ == "__main__":
    main()
