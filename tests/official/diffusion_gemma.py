"""diffusion_gemma.py - DiffusionGemma beside the class of transformers 5.24 (pip install transformers torch): logits of
prompts through the program, and whole canvases with the reference's own random draws.

    python3 tests/official/diffusion_gemma.py            compares on new networks (MASKBENCH_HARNESS, BUILD)
    python3 tests/official/diffusion_gemma.py --record   writes tests/model/fixtures/canvas/, which test_canvas reads

Networks are tiny, of random weights, of both kinds of layers. Nothing of transformers is kept. A reference run is one
JSON text: the prompt, every canvas of noise and every drawn token in order, what each step accepted, the tokens. One
CPU thread, fp32. Weights are numbers of bf16, so that a folder stores them in half the bytes.
"""
import copy, json, os, shutil, subprocess, sys, tempfile

try:
    import numpy, torch
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
    from transformers.models.diffusion_gemma import generation_diffusion_gemma as generation
    from transformers.models.diffusion_gemma.configuration_diffusion_gemma import DiffusionGemmaTextConfig
except ImportError as problem:
    print(f"skipped: {problem}")
    sys.exit(0)

import common

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "..", "model", "fixtures")
TOKENIZER = os.path.join(FIXTURES, "characters", "tokenizer.json")
LOCAL, FULL = "sliding_attention", "full_attention"
NETWORKS = [
    dict(seed=1, layers=[LOCAL, LOCAL, FULL], canvas=16, window=12),
    dict(seed=2, layers=[LOCAL, FULL, LOCAL, LOCAL, FULL], canvas=32, window=24, global_heads=2, bound=1.5),
    dict(seed=3, layers=[LOCAL] * 5 + [FULL], canvas=16, window=5, global_dim=64, experts=3, bound=0.1, confident=3.5),
    dict(seed=4, layers=[FULL, LOCAL, FULL], canvas=16, window=200, heads=2, bound=4.0, stable=2, confident=6.0),
]


def make(folder, seed, layers, canvas, window, global_heads=1, global_dim=32, heads=4, experts=2, bound=0.8, steps=7,
         stable=1, confident=1.5, hidden=32):
    text = DiffusionGemmaTextConfig(
        vocab_size=600, hidden_size=hidden, intermediate_size=24, num_hidden_layers=len(layers), num_attention_heads=heads,
        num_key_value_heads=2, head_dim=16, global_head_dim=global_dim, num_global_key_value_heads=global_heads,
        max_position_embeddings=512, sliding_window=window, layer_types=layers, num_experts=8, top_k_experts=experts,
        moe_intermediate_size=16, pad_token_id=0, eos_token_id=1, bos_token_id=2)
    vision = dict(model_type="gemma4_vision", hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=8,
                  num_attention_heads=2, num_key_value_heads=2, global_head_dim=8, position_embedding_size=16, patch_size=2)
    config = DiffusionGemmaConfig(text_config=text.to_dict(), vision_config=vision, canvas_length=canvas,
                                  boi_token_id=597, eoi_token_id=598, image_token_id=599)
    model = DiffusionGemmaForBlockDiffusion(config).eval().float()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in [*model.named_parameters(), *model.named_buffers()]:
            if "vision" in name or "inv_freq" in name or "embed_scale" in name:
                continue
            noise = torch.randn(p.shape, generator=draw)
            if name.endswith("layer_scalar"):
                p.copy_(0.9 + 0.2 * noise)
            elif p.dim() == 1 and ("norm" in name or "scale" in name):
                p.copy_(1 + 0.3 * noise)
            elif "embed_tokens" in name and p.dim() == 2:
                p.copy_(0.4 * noise)
            elif p.dim() >= 2:
                # What goes back into the network is kept small: differences of 1e-5 would grow with every step.
                p.copy_((0.5 if "self_conditioning" in name else 1.0) * noise / p.shape[-1] ** 0.5)
            p.copy_(p.bfloat16().float())
    model.tie_weights()
    model.generation_config = generation.DiffusionGemmaGenerationConfig(
        max_denoising_steps=steps, sampler_config=generation.EntropyBoundSamplerConfig(entropy_bound=bound), t_min=0.4,
        t_max=0.8, stability_threshold=stable, confidence_threshold=confident, eos_token_id=[1, 593], pad_token_id=0)
    if os.path.exists(folder):
        shutil.rmtree(folder)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    shutil.copy(TOKENIZER, folder)
    return model


def play(model, prompt, new, seed):
    """One run of generate(): its draws, what each step accepted, the new tokens."""
    record = {"prompt": prompt, "new": new, "noise": [], "draws": [], "steps": [], "logits": []}
    sampler, multinomial, forward = generation.EntropyBoundSampler, torch.multinomial, model.forward
    initialize, accept = sampler.initialize_canvas, sampler.accept_canvas

    def noise(self, *args, **kwargs):
        canvas = initialize(self, *args, **kwargs)
        record["noise"].append(canvas[0].tolist())
        return canvas

    def drawn(*args, **kwargs):
        tokens = multinomial(*args, **kwargs)
        record["draws"].append(tokens.flatten().tolist())
        return tokens

    def accepted(self, *args, **kwargs):
        canvas = accept(self, *args, **kwargs)
        taken = self.accepted_token_mask[0].nonzero().flatten().tolist()
        record["steps"].append([[slot, canvas[0][slot].item()] for slot in taken])
        return canvas

    def forwarded(*args, **kwargs):
        out = forward(*args, **kwargs)
        record["logits"].append(out.logits[0].float().numpy().copy())
        return out

    torch.manual_seed(seed)
    try:
        sampler.initialize_canvas, sampler.accept_canvas, torch.multinomial = noise, accepted, drawn
        model.forward = forwarded
        out = model.generate(torch.tensor([prompt]), max_new_tokens=new)
    finally:
        sampler.initialize_canvas, sampler.accept_canvas, torch.multinomial = initialize, accept, multinomial
        del model.forward
    tokens = out.sequences[0].tolist()[len(prompt):]
    ends = [i for i, token in enumerate(tokens) if token in (1, 593)]
    record["tokens"] = tokens[:ends[0] + 1] if ends else tokens
    return record


def encode(model, prompt):
    """Logits of a prompt's own positions: the encoder's last layer through the head."""
    with torch.no_grad():
        hidden = model.model.encoder(input_ids=torch.tensor([prompt])).last_hidden_state
        return (torch.tanh(model.lm_head(hidden)[0].float() / 30) * 30).numpy()


def prompts(seed, lengths):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 590, (n,), generator=draw).tolist() for n in lengths]


def write(folder, runs):
    """golden.json, and the logits of the first two steps of each run as they are."""
    with open(os.path.join(folder, "golden.json"), "w") as file:
        json.dump([{k: v for k, v in r.items() if k != "logits"} for r in runs], file, separators=(",", ":"))
    numpy.concatenate([r["logits"][i][:4].ravel() for r in runs for i in range(2)]).tofile(
        os.path.join(folder, "golden.f32"))


def main():
    torch.set_num_threads(1)
    if "--record" in sys.argv:
        folder = os.path.join(FIXTURES, "canvas")
        model = make(folder, **NETWORKS[0])
        given = prompts(5, [21, 40])
        runs = [play(model, given[0], 40, 1), play(model, given[1], 16, 2)]
        write(folder, runs)
        encode(model, given[1]).astype(numpy.float32).tofile(os.path.join(folder, "prompt.f32"))
        os.remove(os.path.join(folder, "tokenizer.json"))
        return
    tally = common.Tally("DiffusionGemma")
    build = os.environ.get("BUILD", os.path.join(HERE, "..", "..", "build"))
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            model = make(folder, **network)
            runs = []
            for i, prompt in enumerate(prompts(network["seed"], [1, 7, 31, 64, 150])):
                tally.logits(common.our_logits(folder, prompt), encode(model, prompt))
                runs += [play(model, prompt, 50, 10 * i + k) for k in range(2)]
            write(folder, runs)
            done = subprocess.run([os.path.join(build, "tests", "model", "test_canvas")], text=True,
                                  stderr=subprocess.STDOUT, stdout=subprocess.PIPE,
                                  env=dict(os.environ, MASKBENCH_CANVAS=folder))
            steps = sum(len(r["steps"]) for r in runs)
            for run in runs:
                tally.tokens("canvases with the reference's draws", done.returncode, 0)
            print(f"{network['layers']}: {len(runs)} runs, {steps} steps, {'equal' if done.returncode == 0 else done.stdout}")
    return tally.end()


if __name__ == "__main__":
    sys.exit(main())
