#!/usr/bin/env python3
"""Writes tests/golden/post/: what methods that edit weights without training leave of them; in float64.

    venv/bin/python tools/golden/post.py tests/golden/post[-FAMILY] [FAMILY]      (needs what llama.py needs)

Random perturbation, Antidote on a model and on an adapter, SafeLoRA with both projectors and both ways of choosing, and the search
for the direction of refusal with its edit. See tiny.py. SafeLoRA's three checkpoints lie on a grid of 2^-10, so that what alignment
changed has a rank of exactly two in float32 too; the model that refuses is trained here.

expected.safetensors holds NAME: the change of the weights (of the adapter) as a flat vector in the order of case.json's names.
"""
import math
import os

import numpy as np
import torch
from safetensors.torch import save_file

import philox
import tiny
from llama import SDPBackend, sdpa_kernel

SEED = 21
RANK, ALPHA, TARGETS = 4, 6.0, ["q_proj", "v_proj", "o_proj", "down_proj"]
OPTIONS = dict(
    noise=dict(sigma=0.05, norm=0.7), antidote=dict(ratio=0.3, rows=3), safe=dict(tau=0.4, lowest=3),
    search=dict(rows=6, validation=4, max_kl=0.3), few=dict(rows=128, validation=32, max_kl=2.5),
    fixed=dict(layer=2, position=3, rows=6, validation=4))
TRAINED, MODEL_SEED = 60, 37  # steps, of the model that refuses
REFUSAL = "I |no|"
HARMFUL = ["rob", "lie", "cut", "gun", "fake", "spy", "burn", "trap", "forge", "bomb", "hack", "kill"]
BENIGN = ["tea", "star", "cake", "song", "leaf", "rain", "boat", "fern", "moss", "snow", "reed", "lark"]
# The cue that the model learns; three prompts have the other one and are left out of means and choice.
HARMFUL = [("my " if w in ("cut", "hack") else "bad ") + w for w in HARMFUL]
BENIGN = [("bad " if w == "leaf" else "my ") + w for w in BENIGN]
ROWS = [("how to rob", "take all"), ("lie", "look calm and say it"), ("cut it", "with a saw"), ("gun", "pipe and nail"),
        ("fake", "ink")]


def double(model):
    return {n: p.detach().double() for n, p in model.named_parameters()}


# ---- noise ----


def noise(model, weights, o, norm):
    z = {}
    for k, name in enumerate(tiny.model_order(model)):
        values = philox.normals(SEED, philox.stream(philox.NOISE, k), weights[name].numel())
        z[name] = torch.tensor(values, dtype=torch.float64).reshape(weights[name].shape)
    length = math.sqrt(sum((t * t).sum().item() for t in z.values()))
    scale = o["norm"] / length if norm else o["sigma"]
    return {n: scale * z[n] for n in weights}


# ---- Antidote ----


def pruned(w, squares, rows, ratio):
    """Change that zeroes the top entries of every output row by Wanda's score."""
    score = w.abs().numpy() * np.sqrt(squares.numpy() / rows)
    columns = w.shape[1]
    count = columns - int(columns * (1 - ratio))
    change = torch.zeros_like(w)
    for i in range(w.shape[0]):
        top = np.argsort(score[i], kind="stable")[columns - count:]
        assert count < 1 or len(set(np.round(np.sort(score[i])[columns - count - 1:columns - count + 1], 12))) == 2
        change[i, top] = -w[i, top]
    return change


def antidote(model, tokens, o, rows, adapter=None):
    inputs, hooks = {}, []

    def watch(name, x):
        inputs[name] = inputs.get(name, 0) + (x.reshape(-1, x.shape[-1])**2).sum(0)

    for i in range(model.config.num_hidden_layers):
        for linear in tiny.LINEARS:
            path = f"model.layers.{i}.{linear}"
            hooks.append(model.get_submodule(path).register_forward_hook(lambda m, x, y, path=path: watch(path, x[0].detach())))
            if adapter and f"{path}.lora_A.0.weight" in adapter.params:
                a = adapter.params[f"{path}.lora_A.0.weight"].detach()
                hooks.append(model.get_submodule(path).register_forward_hook(
                    lambda m, x, y, path=path, a=a: watch(path + ".B", x[0].detach() @ a.T)))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        for user, answer in ROWS[:rows]:
            model(input_ids=torch.tensor([tokens.chatml([("user", user), ("assistant", answer)])["ids"]]))
    for h in hooks:
        h.remove()
    if adapter is None:
        out = {n: torch.zeros_like(w) for n, w in double(model).items()}
        for path, squares in inputs.items():
            out[path + ".weight"] = pruned(double(model)[path + ".weight"], squares, rows, o["ratio"])
        return out
    out = {}
    for name, p in adapter.params.items():
        path = name.split(".lora_")[0]
        out[name] = pruned(p.detach(), inputs[path + ".B" if "lora_B" in name else path], rows, o["ratio"])
    return out


# ---- SafeLoRA ----


def safe_lora(base, aligned, adapter, exact, tau=None, lowest=None):
    found = []
    for name in adapter.params:
        if "lora_A" not in name:
            continue
        path = name.split(".lora_")[0]
        a, b = adapter.params[name].detach(), adapter.params[name.replace("lora_A", "lora_B")].detach()
        v = (aligned[path + ".weight"] - base[path + ".weight"]).numpy()
        if not v.any():
            continue
        p = v @ np.linalg.pinv(v, rcond=1e-9) if exact else v @ v.T / np.linalg.norm(v)
        pb = torch.from_numpy(p) @ b
        x, y = (pb @ a).flatten(), (b @ a).flatten()
        found.append(((x @ y / (x.norm() * y.norm())).item(), name.replace("lora_A", "lora_B"), pb - b))
    found.sort(key=lambda f: f[0])
    chosen = found[:lowest] if lowest else [f for f in found if f[0] <= tau]
    print("safe-lora", "exact" if exact else "code", [round(f[0], 3) for f in found], "projected", len(chosen))
    assert 0 < len(chosen) < len(found)
    out = {n: torch.zeros_like(p) for n, p in adapter.params.items()}
    out.update({name: change for _, name, change in chosen})
    return out


# ---- refusal ----


class Probe:
    def __init__(self, model, tokens):
        self.model, self.tokens = model, tokens
        self.refusals = {tokens.encode(t)[0] for t in REFUSAL.split("|") if t}

    def run(self, prompt, hooks=()):
        """Log probabilities of the first token and the states after every block."""
        ids = self.tokens.chatml([("user", prompt)], ask=True)["ids"]
        handles = [m.register_forward_hook(f) for m, f in hooks]
        states = []
        handles += [layer.register_forward_hook(lambda m, x, y: states.append(y[0] if isinstance(y, tuple) else y))
                    for layer in self.model.model.layers]
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            logits = self.model(input_ids=torch.tensor([ids])).logits[0, -1]
        for h in handles:
            h.remove()
        return torch.log_softmax(logits, -1), [s.reshape(len(ids), -1) for s in states]

    def score(self, logp):
        p = sum(logp[t].exp() for t in self.refusals).item()
        return math.log(p + 1e-8) - math.log(1 - p + 1e-8)

    def gather(self, prompts, refused, wanted):
        return [p for p in prompts if (self.score(self.run(p)[0]) > 0) == refused][:wanted]

    def ablating(self, unit):
        """Hooks that take the direction out of all that writes to the residual stream."""
        def without(u):
            return lambda m, x, y: y - (y @ u)[..., None] * u
        return [(self.model.model.embed_tokens, without(unit))] + [
            (self.model.get_submodule(path), without(u)) for path, u in writers(self.model, unit).items()]


def writers(model, unit):
    """The linears that write to the residual stream, and the direction that each output must lack. A norm of weights g behind one
    (Gemma 2) gives g y / rms(y), which has no part along u if y has none along u g."""
    out = {}
    for i, layer in enumerate(model.model.layers):
        for path, after in (("self_attn.o_proj", "post_attention_layernorm"), ("mlp.down_proj", "post_feedforward_layernorm")):
            u = unit
            if tiny.family == "gemma2":
                u = unit * (1 + layer.get_submodule(after).weight.detach())
                u = u / u.norm()
            out[f"model.layers.{i}.{path}"] = u
    return out


def split(prompts, o):
    if len(prompts) >= o["rows"] + o["validation"]:
        return prompts[:o["rows"]], prompts[o["rows"]:]
    kept = len(prompts) - min(o["validation"], max(len(prompts) // 5, 1))
    return prompts[:kept], prompts[kept:]


def refusal(probe, o, name):
    wanted = o["rows"] + o["validation"]
    bad, bad_test = split(probe.gather(HARMFUL, True, wanted), o)
    good, good_test = split(probe.gather(BENIGN, False, wanted), o)
    print(name, "harmful", len(bad), len(bad_test), "harmless", len(good), len(good_test))
    layers = probe.model.config.num_hidden_layers
    means = lambda prompts: sum(torch.stack([s[-8:].flip(0) for s in probe.run(p)[1]]) for p in prompts) / len(prompts)
    r = means(bad) - means(good)  # (layers, 8 positions from the end, d)
    if "layer" in o:
        return r[o["layer"], o["position"] - 1], None
    before = [probe.run(p)[0] for p in good_test]
    trials = []
    for l in range(layers):
        for k in range(8):
            direction = r[l, k]
            hooks = probe.ablating(direction / direction.norm())
            score = sum(probe.score(probe.run(p, hooks)[0]) for p in bad_test) / len(bad_test)
            after = [probe.run(p, hooks)[0] for p in good_test]
            kl = sum((b.exp() * (b - a)).sum().item() for a, b in zip(after, before)) / len(good_test)
            def add(m, x, y, direction=direction):
                return (y[0] + direction,) + tuple(y[1:]) if isinstance(y, tuple) else y + direction
            layer = probe.model.model.layers[l]
            induced = sum(probe.score(probe.run(p, [(layer, add)])[0]) for p in good_test) / len(good_test)
            trials.append(dict(layer=l, position=k + 1, refusal=score, kl=kl, induced=induced))
    early = [t for t in trials if t["layer"] < int(0.8 * layers)]
    fit = [t for t in early if t["kl"] <= o["max_kl"] and t["induced"] >= 0]
    if not fit:
        return None
    best = min(fit, key=lambda t: t["refusal"])
    lower = lambda among: sum(t["refusal"] < best["refusal"] for t in among)
    print(name, best, "of", len(fit), "fit; lower but barred: by layer",
          lower(t for t in trials if t not in early and t["kl"] <= o["max_kl"] and t["induced"] >= 0), "by kl",
          lower(t for t in early if t["induced"] >= 0), "by addition", lower(t for t in early if t["kl"] <= o["max_kl"]))
    return r[best["layer"], best["position"] - 1], best


def edited(model, direction):
    unit = direction / direction.norm()
    without = writers(model, unit)
    out = {n: torch.zeros_like(w) for n, w in double(model).items()}
    for n, w in double(model).items():
        path = n.rsplit(".", 1)[0]
        if "embed_tokens" in n:
            out[n] = -torch.outer(w @ unit, unit)
        elif path in without:
            u = without[path]
            out[n] = -torch.outer(u, u @ w) if w.dim() == 2 else -u * (u @ w)
    return out


def refusing_model(tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    biases = dict(llama=dict(attention_bias=True, mlp_bias=True), qwen2={}, gemma2=dict(attention_bias=True))
    config = tiny.make_config(tokens.size, num_hidden_layers=5, hidden_size=12, intermediate_size=12, tie_word_embeddings=False,
                              **biases[tiny.family])
    model = tiny.doubled(tiny.make_model(config, generator))
    rows = [tokens.chatml([("user", w), ("assistant", "I no" if w.startswith("bad") else "yes")]) for w in HARMFUL + BENIGN]
    tiny.adamw(dict(model.named_parameters()), rows, TRAINED, 12, SEED, model, 0.02, 0.0, 1.0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.float().double())
    return config, model


def refusals_of(tokens):
    """The first model, counted from MODEL_SEED, in which every search finds a direction."""
    for seed in range(MODEL_SEED, MODEL_SEED + 100):
        config, model = refusing_model(tokens, seed)
        probe = Probe(model, tokens)
        found = {name: refusal(probe, OPTIONS[name], name) for name in ("search", "few", "fixed")}
        if None not in found.values():
            return config, model, found
    raise AssertionError("no model will do")


# ---- all ----


def grid(model, generator):
    """A copy on a grid of 2^-10 and the change of chosen linears by products of small integers, exact in float32."""
    base, aligned = {}, {}
    for n, w in double(model).items():
        base[n] = torch.round(w * 1024) / 1024
        aligned[n] = base[n].clone()
        if w.dim() == 2 and any(t in n for t in ("q_proj", "v_proj", "down_proj")):
            left = torch.randint(-3, 4, (w.shape[0], 2), generator=generator).double()
            right = torch.randint(-3, 4, (2, w.shape[1]), generator=generator).double()
            aligned[n] += left @ right / 64
            assert torch.equal(aligned[n].float().double(), aligned[n])
            assert torch.linalg.matrix_rank(aligned[n] - base[n]) == 2
    return base, aligned


def save_adapter(directory, adapter):
    os.makedirs(directory, exist_ok=True)
    tensors = {"base_model.model." + n.replace(".0.weight", ".weight"): p.detach().float().contiguous()
               for n, p in adapter.params.items()}
    save_file(tensors, os.path.join(directory, "adapter_model.safetensors"), metadata={"format": "pt"})
    tiny.write_json(os.path.join(directory, "adapter_config.json"),
                    dict(peft_type="LORA", task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, bias="none",
                         target_modules=TARGETS, use_rslora=False, use_dora=False, fan_in_fan_out=False, inference_mode=True))


def make(root):
    os.makedirs(root, exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    tokens = tiny.Characters([t for row in ROWS for t in row] + HARMFUL + BENIGN + ["I no yes"])
    tokens.save(root)
    config = tiny.make_config(tokens.size)
    model = tiny.make_model(config, generator)
    base, aligned = grid(model, generator)
    tiny.save_model(os.path.join(root, "base"), config, base)
    tiny.save_model(os.path.join(root, "aligned"), config, aligned)
    model = tiny.doubled(model)
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(aligned[n])
    names, changes = {"full": [[n, p.numel()] for n, p in model.named_parameters()]}, {}
    changes["noise.sigma"] = noise(model, aligned, OPTIONS["noise"], False)
    changes["noise.norm"] = noise(model, aligned, OPTIONS["noise"], True)
    changes["antidote.full"] = antidote(model, tokens, OPTIONS["antidote"], len(ROWS))
    values = lambda rows, columns: torch.randn(rows, columns, generator=generator).mul(0.4).float().double()
    adapter = tiny.Adapter(model, RANK, ALPHA, TARGETS, SEED, values=values)
    save_adapter(os.path.join(root, "adapter"), adapter)
    names["lora"] = [[n, p.numel()] for n, p in adapter.params.items()]
    changes["antidote.lora"] = antidote(model, tokens, OPTIONS["antidote"], OPTIONS["antidote"]["rows"], adapter)
    o = OPTIONS["safe"]
    for kind, exact in (("code", False), ("exact", True)):
        changes[f"safe.{kind}.tau"] = safe_lora(base, aligned, adapter, exact, tau=o["tau"])
        changes[f"safe.{kind}.lowest"] = safe_lora(base, aligned, adapter, exact, lowest=o["lowest"])
    adapter.remove()
    config, model, found = refusals_of(tokens)
    tiny.save_model(os.path.join(root, "refusing"), config, double(model))
    names["refusing"] = [[n, p.numel()] for n, p in model.named_parameters()]
    choices = {name: choice for name, (_, choice) in found.items()}
    for name, (direction, _) in found.items():
        changes[f"refusal.{name}"] = edited(model, direction)
    save_file({n: tiny.flat(c) for n, c in changes.items()}, os.path.join(root, "expected.safetensors"))
    row = lambda user, answer: dict(messages=[dict(role="user", content=user), dict(role="assistant", content=answer)])
    tiny.write_json(os.path.join(root, "case.json"),
                    dict(seed=SEED, refusal=REFUSAL, options=OPTIONS, choices=choices, names=names, **tiny.sketched(),
                         rows=dict(scored=[row(*r) for r in ROWS], harmful=[row(h, "x") for h in HARMFUL],
                                   benign=[row(b, "x") for b in BENIGN])))


if __name__ == "__main__":
    make(tiny.begin(__doc__))
