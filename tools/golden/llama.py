#!/usr/bin/env python3
"""Writes tests/golden/llama-*/: tiny Llama checkpoints with what transformers and PEFT compute on them in float64.

    python3 -m venv venv && venv/bin/pip install torch transformers peft safetensors
    venv/bin/python tools/golden/llama.py tests/golden

Needed only to make the fixtures anew; building, running and testing Temper never calls it.

transformers computes RoPE tables, RMSNorm and (in eager attention) the softmax in float32 even for a float64 model. Here all of it is
done in float64, so that the comparison reaches 1e-8: RMSNorm and the rotary table are replaced by float64 versions of the same
formulas, and attention runs through scaled_dot_product_attention. The float64 inverse frequencies are checked against
transformers' own float32 ones.
"""
import json
import math
import os
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

STEPS, ROWS = 10, 2
OPTIMISER = dict(lr=8e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
CLIP = 1.0

CASES = {
    # Tied, grouped-query, Llama 3 scaling, positions past both the original and the trained length.
    "llama-tied": dict(
        hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=61, max_position_embeddings=32, tie_word_embeddings=True, rms_norm_eps=1e-5,
        rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=16)),
    # Untied, one KV head, head_dim unlike hidden/heads, odd vocabulary, biases on attention and MLP.
    "llama-untied": dict(
        hidden_size=24, intermediate_size=34, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, head_dim=10,
        vocab_size=53, max_position_embeddings=24, tie_word_embeddings=False, rms_norm_eps=1e-6, attention_bias=True,
        mlp_bias=True, rope_parameters=dict(rope_type="default", rope_theta=500.0)),
}


def inverse_frequencies(config):
    """Formulas of transformers' ROPE_INIT_FUNCTIONS, float64."""
    rope = config.rope_parameters
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
    inv = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    if rope["rope_type"] == "llama3":
        low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
        high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
        wave = 2 * math.pi / inv
        smooth = (rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"]) / (
            rope["high_freq_factor"] - rope["low_freq_factor"])
        mixed = (1 - smooth) * inv / rope["factor"] + smooth * inv
        inv = torch.where(wave > low, inv / rope["factor"], torch.where(wave < high, inv, mixed))
    return inv


def rotary_forward(self, x, position_ids):
    inv = inverse_frequencies(self.config)
    if self.inv_freq.dtype != torch.bfloat16:  # a model cast to bf16 has its buffer rounded too
        assert torch.allclose(inv.float(), self.inv_freq.float(), rtol=2e-6), "formula differs from transformers"
    angle = position_ids[:, :, None].to(torch.float64) * inv
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


def norm_forward(self, x):
    wide = x.to(torch.float64) if x.dtype == torch.float64 else x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * wide.to(x.dtype)


modeling_llama.LlamaRotaryEmbedding.forward = rotary_forward
modeling_llama.LlamaRMSNorm.forward = norm_forward


def make_batches(config, generator):
    longest = config.max_position_embeddings + 16
    batches = []
    for _ in range(STEPS):
        rows = []
        for r in range(ROWS):
            length = longest if r == 0 else int(torch.randint(longest // 2, longest, (1,), generator=generator))
            ids = torch.randint(0, config.vocab_size, (length,), generator=generator).tolist()
            start = int(torch.randint(2, length // 2, (1,), generator=generator))
            rows.append(dict(ids=ids, labels=[-100] * start + ids[start:]))
        batches.append(rows)
    return batches


def tensors(rows):
    width = max(len(r["ids"]) for r in rows)
    ids = torch.tensor([r["ids"] + [0] * (width - len(r["ids"])) for r in rows])
    labels = torch.tensor([r["labels"] + [-100] * (width - len(r["ids"])) for r in rows])
    mask = torch.tensor([[1] * len(r["ids"]) + [0] * (width - len(r["ids"])) for r in rows])
    return ids, labels, mask


def loss_of(model, rows):
    ids, labels, mask = tensors(rows)
    with sdpa_kernel(SDPBackend.MATH):
        logits = model(input_ids=ids, attention_mask=mask).logits
    flat, target = logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1)
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return torch.nn.functional.cross_entropy(flat.to(wide), target), logits


def real_logits(logits, rows):
    return torch.cat([logits[i, : len(r["ids"])] for i, r in enumerate(rows)])


def train(model, batches):
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    start = {n: p.detach().clone() for n, p in params.items()}
    # As Hugging Face's Trainer: norms and biases are not decayed.
    groups = [dict(params=[p for p in params.values() if p.dim() >= 2]),
              dict(params=[p for p in params.values() if p.dim() < 2], weight_decay=0.0)]
    optimiser = torch.optim.AdamW([g for g in groups if g["params"]], **OPTIMISER)
    losses, grads = [], None
    for rows in batches:
        optimiser.zero_grad()
        loss, _ = loss_of(model, rows)
        loss.backward()
        losses.append(loss.item())
        if grads is None:
            grads = {n: p.grad.detach().clone() for n, p in params.items()}
        torch.nn.utils.clip_grad_norm_(params.values(), CLIP)
        optimiser.step()
    delta = {n: (p.detach() - start[n]) for n, p in params.items()}
    for name, d in delta.items():
        assert d.norm() >= 1e-2 * start[name].norm(), (name, (d.norm() / start[name].norm()).item())
    return losses, grads, delta


def peakedness(model, rows):
    """Mean over heads and late positions of the largest attention weight."""
    model.set_attn_implementation("eager")
    ids, _, mask = tensors(rows)
    weights = model(input_ids=ids[:1], attention_mask=mask[:1], output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    return min(w[0, :, w.shape[2] // 2 :].max(-1).values.mean().item() for w in weights)


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def bf16_errors(source, rows, exact_logits, exact_grads, autocast):
    model = LlamaForCausalLM(source.config).double()
    model.load_state_dict(source.state_dict())
    model = model.float() if autocast else model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, logits = loss_of(model, rows)
    loss.backward()
    errors = {n: relative(p.grad, exact_grads[n]) for n, p in model.named_parameters()}
    return dict(logits=relative(real_logits(logits.detach(), rows), exact_logits), grads=errors)


def make(name, settings, root):
    torch.manual_seed(20261121)
    generator = torch.Generator().manual_seed(7)
    directory = os.path.join(root, name)
    os.makedirs(os.path.join(directory, "adapter"), exist_ok=True)
    config = LlamaConfig(**settings, bos_token_id=1, eos_token_id=2, attn_implementation="sdpa")
    model = LlamaForCausalLM(config)
    for pname, p in model.named_parameters():
        with torch.no_grad():
            if p.dim() == 1:  # norm weights around one, biases around zero, all told apart
                base = 0.0 if pname.endswith("bias") else 1.0
                p.copy_(base + 0.2 * torch.randn(p.shape, generator=generator))
            else:
                spread = 2.2 if ("q_proj" in pname or "k_proj" in pname) else 1.0
                p.copy_(spread * torch.randn(p.shape, generator=generator) / math.sqrt(p.shape[1]))
    state = {n: p.detach().clone().float() for n, p in model.named_parameters()}
    save_file(state, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
    config.dtype, config.architectures = torch.float32, ["LlamaForCausalLM"]
    config.save_pretrained(directory)
    model = model.double()
    batches = make_batches(config, generator)

    peak = peakedness(model, batches[0])
    assert peak > 0.5, f"attention is not peaked: {peak}"
    loss, logits = loss_of(model, batches[0])
    out = {"logits": real_logits(logits.detach(), batches[0])}
    reference = {n: p.detach().clone() for n, p in model.named_parameters()}
    losses, grads, delta = train(model, batches)
    out.update({f"grad.{n}": g for n, g in grads.items()})
    out.update({f"delta.{n}": d for n, d in delta.items()})
    model.load_state_dict({**reference, **({"lm_head.weight": reference["model.embed_tokens.weight"]}
                                           if config.tie_word_embeddings else {})})
    bf16 = {kind: bf16_errors(model, batches[0], out["logits"], grads, kind == "autocast") for kind in ("autocast", "pure")}

    lora = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"]))
    for pname, p in lora.named_parameters():
        if p.requires_grad:
            with torch.no_grad():
                p.copy_((0.3 * torch.randn(p.shape, generator=generator)).float().double())
    lora.save_pretrained(os.path.join(directory, "adapter"))
    adapter = {n.replace(".default", ""): p.detach().float().contiguous() for n, p in lora.named_parameters() if p.requires_grad}
    save_file(adapter, os.path.join(directory, "adapter", "adapter_model.safetensors"), metadata={"format": "pt"})
    lora_losses, lora_grads, lora_delta = train(lora, batches)
    clean = lambda n: n.replace(".default", "")
    out.update({f"lora.grad.{clean(n)}": g for n, g in lora_grads.items()})
    out.update({f"lora.delta.{clean(n)}": d for n, d in lora_delta.items()})

    save_file({n: t.contiguous() for n, t in out.items()}, os.path.join(directory, "expected.safetensors"))
    with open(os.path.join(directory, "case.json"), "w") as f:
        json.dump(dict(lr=OPTIMISER["lr"], weight_decay=OPTIMISER["weight_decay"], clip=CLIP, losses=losses,
                       lora_losses=lora_losses, peak=peak, batches=batches, bf16=bf16), f, indent=None, separators=(",", ":"))
        f.write("\n")
    readme = os.path.join(directory, "adapter", "README.md")
    if os.path.exists(readme):
        os.remove(readme)
    print(name, "loss", losses[0], "->", losses[-1], "lora", lora_losses[0], "->", lora_losses[-1], "peak", round(peak, 3))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for case, chosen in CASES.items():
        make(case, chosen, sys.argv[1])
