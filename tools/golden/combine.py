#!/usr/bin/env python3
"""Writes tests/golden/combine/: three AdamW steps of methods that combine or perturb gradients, in float64.

    venv/bin/python tools/golden/combine.py tests/golden/combine[-FAMILY] [FAMILY]      (needs what llama.py needs)

Panacea, Booster, Vaccine, random Vaccine, T-Vaccine, gradient ascent and Lisa, each on all weights and on a LoRA adapter of one
tiny checkpoint, written from their formulas with autograd; llama.py makes transformers compute in float64.

expected.safetensors holds, per method and kind (full, lora), flat vectors over the parameters in the order of case.json's names:
METHOD.KIND.grad0 and .grad2 (gradient of the first and third step, before clipping), .delta (weights after three steps minus
before), for Panacea .shift (the last perturbation).
"""
import json
import math
import os
import re

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

import philox
import tiny
from llama import loss_of
from tiny import flat, norm

STEPS, ROWS = 3, 2
ADAMW = dict(lr=8e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
CLIP = 1.0
SEED = 8  # of the noise
OPTIONS = dict(
    panacea=dict(**{"lambda": 0.7}, rho=0.4), booster=dict(**{"lambda": 5.0}, alpha=0.3), vaccine=dict(rho=2.0),
    random_vaccine=dict(rho=0.25), lisa=dict(k1=1, k2=2, rho=3.0),
    t_vaccine=dict(rho=1.5, blocks=1, redraw=1, rescore=2, prompts=2))
FLOOR = 1e-7


def gradient(model, params, rows, sign=1.0):
    loss, _ = loss_of(model, rows)
    return sign * loss.item(), list(torch.autograd.grad(sign * loss, params))


def shifted(model, params, rows, shift):
    kept = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p, s in zip(params, shift):
            p += s
    _, grads = gradient(model, params, rows)
    with torch.no_grad():
        for p, k in zip(params, kept):
            p.copy_(k)
    return grads


def panacea(model, params, first, second, state):
    o = OPTIONS["panacea"]
    loss, g = gradient(model, params, first)
    _, h = gradient(model, params, second)
    epsilon = [o["rho"] * x / (norm(h) + FLOOR) for x in h]
    at = shifted(model, params, second, epsilon)
    state["shift"] = epsilon
    return loss, [a - o["lambda"] * (c - b) for a, b, c in zip(g, h, at)]


def booster(model, params, first, second, state):
    o = OPTIONS["booster"]
    loss, f = gradient(model, params, first)
    _, h = gradient(model, params, second)
    at = shifted(model, params, second, [-o["alpha"] * x / (norm(h) + FLOOR) for x in h])
    return loss, [a + o["lambda"] * (b - c) for a, b, c in zip(f, h, at)]


def layers(model):
    return (model.base_model.model if hasattr(model, "peft_config") else model).model.layers


def with_attention_outputs(model, move, run):
    """`move(layer, output)` stands in for the output of each attention module while `run()` runs."""
    hooks = []
    for i, layer in enumerate(layers(model)):
        def hook(_module, _inputs, output, i=i):
            return (move(i, output[0]),) + tuple(output[1:])
        hooks.append(layer.self_attn.register_forward_hook(hook))
    try:
        return run()
    finally:
        for h in hooks:
            h.remove()


def two_passes(model, params, rows, rho, chosen):
    seen = {}

    def watch(i, output):
        seen[i] = output if output.requires_grad else output.requires_grad_()
        return seen[i]

    loss = with_attention_outputs(model, watch, lambda: loss_of(model, rows)[0])
    order = sorted(chosen)
    g = torch.autograd.grad(loss, [seen[i] for i in order])
    e = {i: rho * x / (norm(g) + FLOOR) for i, x in zip(order, g)}
    return with_attention_outputs(model, lambda i, output: output + e[i] if i in e else output, lambda: gradient(model, params, rows))


def vaccine(model, params, first, second, state):
    return two_passes(model, params, first, OPTIONS["vaccine"]["rho"], range(len(layers(model))))


def random_vaccine(model, params, first, second, state):
    tokens, hidden, count = len(first[0]["ids"]), layers(model)[0].hidden_size, len(layers(model))
    z = torch.tensor(philox.normals(SEED, philox.stream(philox.NOISE, state["step"]), count * tokens * hidden), dtype=torch.float64)
    z = math.sqrt(OPTIONS["random_vaccine"]["rho"]) * z.reshape(count, 1, tokens, hidden)
    return with_attention_outputs(model, lambda i, output: output + z[i], lambda: gradient(model, params, first))


def block_of(name):
    found = re.search(r"layers\.(\d+)\.", name)
    return int(found.group(1)) if found else None


def t_vaccine(model, params, first, second, state):
    """One block of two; state["still"] tells the optimiser which parameters rest."""
    o = OPTIONS["t_vaccine"]
    block = [block_of(n) for n, p in model.named_parameters() if p.requires_grad]
    if state["step"] % o["rescore"] == 0:
        _, h = gradient(model, params, second)
        state["importance"] = [float(norm([x for x, b in zip(h, block) if b == l])) for l in range(len(layers(model)))]
    s = state["importance"]
    u = philox.uniforms(SEED, philox.stream(philox.BLOCKS, state["step"]), 1)[0]
    chosen = 0 if u < s[0] / sum(s) else 1
    loss, g = two_passes(model, params, first, o["rho"], [chosen])
    state["still"] = [b is not None and b != chosen for b in block]
    state.setdefault("chosen", []).append(chosen)
    return loss, [torch.zeros_like(x) if rests else x for x, rests in zip(g, state["still"])]


def ascent(model, params, first, second, state):
    return gradient(model, params, first, -1.0)


def sft(model, params, first, second, state):
    return gradient(model, params, first)


def lisa(model, params, first, second, state):
    o, step = OPTIONS["lisa"], state["step"]
    at = step % (o["k1"] + o["k2"])
    if at in (0, o["k1"]):
        state["anchor"] = [p.detach().clone() for p in params]
    loss, g = gradient(model, params, second if at < o["k1"] else first)
    if step >= 0.1 * STEPS:
        g = [x + o["rho"] * (p.detach() - a) for x, p, a in zip(g, params, state["anchor"])]
    return loss, g


METHODS = dict(sft=sft, panacea=panacea, booster=booster, vaccine=vaccine, random_vaccine=random_vaccine, t_vaccine=t_vaccine,
               ascent=ascent, lisa=lisa)


def adamw(params, grads, m, v, t, still):
    """torch.optim.AdamW with clipping by the global norm; parameters that rest keep weights and moments."""
    beta1, beta2 = ADAMW["betas"]
    scale = min(1.0, CLIP / (norm(grads).item() + 1e-6))
    with torch.no_grad():
        for i, p in enumerate(params):
            if still[i]:
                continue
            g = grads[i] * scale
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g * g
            if p.dim() >= 2:  # as Hugging Face's Trainer: norms and biases are not decayed
                p -= ADAMW["lr"] * ADAMW["weight_decay"] * p
            p -= ADAMW["lr"] * (m[i] / (1 - beta1**t)) / ((v[i] / (1 - beta2**t)).sqrt() + ADAMW["eps"])


def run(model, method, firsts, seconds):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    params = [p for _, p in named]
    start = [p.detach().clone() for p in params]
    m, v = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    losses, grads, state = [], [], {}
    for step in range(STEPS):
        state["step"] = step
        first = firsts[step][:1] if method is random_vaccine else firsts[step]  # one row: noise has no row order
        loss, g = method(model, params, first, seconds[step], state)
        losses.append(loss)
        grads.append([x.detach().clone() for x in g])
        adamw(params, g, m, v, step + 1, state.get("still", [False] * len(params)))
    change = [(p - s).detach() for p, s in zip(params, start)]
    out = dict(grad0=grads[0], grad2=grads[2], delta=change)
    if "chosen" in state:
        print("t_vaccine blocks", state["chosen"])
        assert len(set(state["chosen"])) == 2, "one block rests throughout; choose another seed of the model"
    if "shift" in state:
        out["shift"] = state["shift"]
    with torch.no_grad():
        for p, s in zip(params, start):
            p.copy_(s)
    return losses, out, state


def make_batches(vocab, generator):
    batches = []
    for _ in range(STEPS):
        rows = []
        for r in range(ROWS):
            length = int(torch.randint(6, 12, (1,), generator=generator))
            ids = torch.randint(0, vocab, (length,), generator=generator).tolist()
            start = int(torch.randint(2, 4, (1,), generator=generator))
            rows.append(dict(ids=ids, labels=[-100] * start + ids[start:]))
        batches.append(rows)
    return batches


def ours(name):
    return name.replace("base_model.model.", "", 1).replace(".default", ".0")


def make(directory):
    os.makedirs(os.path.join(directory, "adapter"), exist_ok=True)
    generator = torch.Generator().manual_seed(11)
    config = tiny.make_config(11, max_position_embeddings=16, bos_token_id=1, eos_token_id=2, initializer_range=0.02)
    model = tiny.make_model(config, generator, sharp=2.0)
    tiny.save_model(directory, config, dict(model.named_parameters()))
    model = tiny.doubled(model)
    firsts, seconds = make_batches(config.vocab_size, generator), make_batches(config.vocab_size, generator)
    case = dict(lr=ADAMW["lr"], weight_decay=ADAMW["weight_decay"], clip=CLIP, seed=SEED, options=OPTIONS, first=firsts,
                second=seconds, names={}, losses={}, importance={}, **tiny.sketched())
    out = {}
    for kind in ("full", "lora"):
        if kind == "lora":
            model = get_peft_model(model, LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"]))
            for _, p in model.named_parameters():
                if p.requires_grad:
                    with torch.no_grad():
                        p.copy_((0.4 * torch.randn(p.shape, generator=generator)).float().double())
            model.save_pretrained(os.path.join(directory, "adapter"))
            path = os.path.join(directory, "adapter", "adapter_config.json")
            peft = json.load(open(path))
            peft["target_modules"].sort()  # a set, in any order
            json.dump(peft, open(path, "w"), indent=2)
            adapter = {n.replace(".default", ""): p.detach().float().contiguous()
                       for n, p in model.named_parameters() if p.requires_grad}
            save_file(adapter, os.path.join(directory, "adapter", "adapter_model.safetensors"), metadata={"format": "pt"})
        case["names"][kind] = [[ours(n), p.numel()] for n, p in model.named_parameters() if p.requires_grad]
        plain = None
        for name, method in METHODS.items():
            losses, vectors, state = run(model, method, firsts, seconds)
            if "importance" in state:
                case["importance"][kind] = state["importance"]
            if method is sft:  # pinned by test_llama; here only to be told from
                plain = vectors["grad2"]
                continue
            # A method that the comparison could not tell from SFT would pin nothing.
            assert norm([a - b for a, b in zip(vectors["grad2"], plain)]) > 1e-2 * norm(plain), (name, kind)
            case["losses"][f"{name}.{kind}"] = losses
            out.update({f"{name}.{kind}.{k}": flat(v) for k, v in vectors.items()})
    save_file(out, os.path.join(directory, "expected.safetensors"))
    with open(os.path.join(directory, "case.json"), "w") as f:
        json.dump(case, f, separators=(",", ":"))
        f.write("\n")
    readme = os.path.join(directory, "adapter", "README.md")
    if os.path.exists(readme):
        os.remove(readme)


if __name__ == "__main__":
    make(tiny.begin(__doc__))
