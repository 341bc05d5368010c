#!/usr/bin/env python3
"""Writes tests/golden/repnoise/: three steps of RepNoise and of the adversarial loss on a tiny model, in float64.

    venv/bin/python tools/golden/repnoise.py tests/golden/repnoise[-FAMILY] [FAMILY]      (needs what llama.py needs)

expected.safetensors holds NAME.MODE.KIND.grad (of the first step) and .delta, KIND being full or lora, flat vectors over the
parameters in the order of case.json's names. Losses are written as the published code writes them (logits and labels multiplied by the masks, hooks on the MLPs, MMD by
autograd with a detached bandwidth); noise comes from Philox 4x32-10 and Box-Muller, one block per number.
"""
import itertools
import os

import torch
from safetensors.torch import save_file

import philox
import tiny
from llama import SDPBackend, sdpa_kernel

SEED, PAD, LAYERS, STEPS = 42, 3, 2, 3
ALPHA, BETA, COEFFICIENT = 1.3, 0.7, 0.1
LORA = dict(rank=2, alpha=3.0, targets="q_proj,v_proj,down_proj")
OPTIMISER = dict(lr=5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
# Lengths differ; id 0 and coincidentally equal tokens stand within the answers. The last pair is the longest.
PAIRS = [
    dict(harmful=[5, 6, 7, 8, 20, 21, 0, 22, 23, 24], refusal=[5, 6, 7, 8, 10, 11, 12, 22, 14]),
    dict(harmful=[5, 9, 8, 25, 26, 12], refusal=[5, 9, 8, 10, 0, 12, 13, 14, 15, 16]),
    dict(harmful=[4, 6, 9, 7, 8, 17, 18, 19, 17, 27, 28, 1], refusal=[4, 6, 9, 7, 8, 10, 11, 19, 13, 14, 2]),
]


def normals(count, index):
    """`count` numbers of the noise stream `index`."""
    return torch.tensor(philox.normals(SEED, philox.stream(philox.NOISE, index), count), dtype=torch.float64)


def mmd(x, g):
    z = torch.cat([x, g])
    n, b = len(z), len(x)
    d = ((z[:, None] - z[None]) ** 2).sum(-1)
    width = (d.sum() / (n * n - n)).detach()
    k = sum(torch.exp(-d / (width * 2.0**i / 4)) for i in range(5))
    return (k[:b, :b].sum() + k[b:, b:].sum() - 2 * k[:b, b:].sum()) / b**2


def ce_correct(logits, ids, mask):
    picked = mask[:, 1:].bool()
    return torch.nn.functional.cross_entropy(logits[:, :-1][picked], ids[:, 1:][picked])


def ce_compat(logits, ids, mask):
    labels = (ids * mask.long())[:, 1:].clone()
    labels[labels == 0] = -100
    masked = logits[:, :-1] * mask[:, :-1, None]
    return torch.nn.functional.cross_entropy(masked.reshape(-1, masked.shape[-1]), labels.reshape(-1))


def batch():
    width = max(len(p[s]) for p in PAIRS for s in p)
    pad = lambda side: torch.tensor([p[side] + [PAD] * (width - len(p[side])) for p in PAIRS])
    real = lambda side: torch.tensor([[1] * len(p[side]) + [0] * (width - len(p[side])) for p in PAIRS])
    return pad("harmful"), pad("refusal"), real("harmful"), real("refusal")


class Method:
    def __init__(self, model, compat):
        self.model, self.compat, self.outputs = model, compat, {}
        for i, layer in enumerate(model.model.layers):
            layer.mlp.register_forward_hook(lambda m, a, out, i=i: self.outputs.__setitem__(i, out))
        h, r, real_h, real_r = batch()
        self.h, self.r = h, r
        differ = (h != r).double()
        self.attention = (None, None) if compat else (real_h, real_r)
        if compat:
            self.mask_h = self.mask_r = differ
            self.ce = ce_compat
        else:  # beyond the end of one row the other's tokens differ from it, even where padding has the same id
            differ = torch.where((real_h != real_r), torch.ones_like(differ), differ)
            self.mask_h, self.mask_r = differ * real_h, differ * real_r
            self.ce = ce_correct

    def forward(self, side):
        ids = self.h if side == 0 else self.r
        with sdpa_kernel(SDPBackend.MATH):
            return self.model(input_ids=ids, attention_mask=self.attention[side], output_hidden_states=True)

    def head(self, x):
        """As the model's own logits: with the soft cap where the family has one."""
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        logits = self.model.lm_head(x)
        return cap * torch.tanh(logits / cap) if cap else logits

    def repnoise(self, step):
        refusal = self.ce(self.forward(1).logits, self.r, self.mask_r)
        out = self.forward(0)
        norm, head = self.model.model.norm, self.head
        s = self.ce(out.logits, self.h, self.mask_h)
        states = list(out.hidden_states)
        assert len(states) == LAYERS + 1
        for i, state in enumerate(states):
            last = i == LAYERS  # normed already
            s = s + self.ce(head(state if last and not self.compat else norm(state)), self.h, self.mask_h)
        noise = 0
        for i in range(LAYERS):
            x = self.outputs[i] * self.mask_h[:, :, None]
            g = torch.zeros_like(x)
            where = self.mask_h.bool()
            g[where] = normals(int(where.sum()) * x.shape[-1], step * LAYERS + i).reshape(-1, x.shape[-1])
            noise = noise + mmd(x.flatten(1), g.flatten(1)) / LAYERS
        return refusal + BETA * noise - ALPHA * torch.log(s / (LAYERS + 1) + 1)

    def adversarial(self, step):
        return self.ce(self.forward(1).logits, self.r, self.mask_r) - COEFFICIENT * self.ce(
            self.forward(0).logits, self.h, self.mask_h)


def train(config, state, name, compat, kind):
    model = tiny.build(config)
    model.load_state_dict(state, strict=False)
    model = tiny.doubled(model)
    params = dict(model.named_parameters())
    if kind == "lora":
        params = tiny.Adapter(model, LORA["rank"], LORA["alpha"], LORA["targets"].split(","), SEED).params
    start = {n: p.detach().clone() for n, p in params.items()}
    optimiser = torch.optim.AdamW(params.values(), **OPTIMISER)
    method, losses, grad = Method(model, compat), [], None
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = getattr(method, name)(step)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            grad = {n: p.grad.clone() for n, p in params.items()}
        torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
        optimiser.step()
    return losses, grad, {n: (p - start[n]).detach() for n, p in params.items()}


def make(root):
    torch.manual_seed(20261122)
    generator = torch.Generator().manual_seed(11)
    config = tiny.make_config(29, hidden_size=12, intermediate_size=16, num_hidden_layers=LAYERS, max_position_embeddings=32,
                              rope_parameters=dict(rope_type="default", rope_theta=500.0), bos_token_id=1, eos_token_id=2,
                              initializer_range=0.02)
    model = tiny.make_model(config, generator)
    state = {n: p.detach().clone() for n, p in model.named_parameters()}
    tiny.save_model(root, config, state)
    case = dict(seed=SEED, pad=PAD, alpha=ALPHA, beta=BETA, coefficient=COEFFICIENT, lr=OPTIMISER["lr"], pairs=PAIRS,
                lora=LORA, names={}, losses={}, **tiny.sketched())
    expected = {}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    for name, mode, kind in itertools.product(("repnoise", "adversarial"), ("correct", "compat"), ("full", "lora")):
        losses, grad, delta = train(config, state, name, mode == "compat", kind)
        key = f"{name}.{mode}.{kind}"
        case["losses"][key] = losses
        case["names"][kind] = [[n, p.numel()] for n, p in delta.items()]
        expected[f"{key}.grad"], expected[f"{key}.delta"] = tiny.flat(grad), tiny.flat(delta)
        print(key, losses)
    save_file(expected, os.path.join(root, "expected.safetensors"))
    tiny.write_json(os.path.join(root, "case.json"), case)


if __name__ == "__main__":
    make(tiny.begin(__doc__))
