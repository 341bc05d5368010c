#!/usr/bin/env python3
"""Writes tests/golden/families/: what transformers and PEFT compute in float64 on tiny checkpoints of every family.

    python3 -m venv venv && venv/bin/pip install torch transformers peft safetensors
    venv/bin/python tools/golden/families.py tests/golden/families [CASE...]

Needed only to make the fixtures anew; building, running and testing Temper never calls it.

Weights are a formula of their name and index (`weight_values`), which tests/golden/test_families.c computes as well, so that no
weights are stored. transformers computes rotary tables, RMSNorm, eager attention's softmax and Gemma's embedding scale in float32
even for a float64 model; here all of it is float64. The float64 inverse frequencies are checked against transformers' own.
"""
import json
import math
import os
import sys

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gemma import modeling_gemma
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.phi import modeling_phi
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

GEMMAS = ("Gemma", "Gemma2")
STEPS, NEW_TOKENS, LABELS = 4, 20, 3
OPTIMISER = dict(lr=8e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
CLIP = 1.0
MODULES = dict(Llama=modeling_llama, Mistral=modeling_mistral, Qwen2=modeling_qwen2, Qwen3=modeling_qwen3, Gemma2=modeling_gemma2,
               Gemma=modeling_gemma, Phi=modeling_phi)

SMALL = dict(hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
             vocab_size=23, max_position_embeddings=20, tie_word_embeddings=False, pad_token_id=3)


def rope(kind, theta=100.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


CASES = {
    # name: (family, settings, LoRA targets or None: logits and text only)
    "mistral": ("Mistral", dict(SMALL, num_key_value_heads=1, head_dim=6, sliding_window=7, rope_parameters=rope("default")),
                ["q_proj", "o_proj", "up_proj"]),
    "qwen2": ("Qwen2", dict(SMALL, head_dim=4, num_hidden_layers=3, vocab_size=29, tie_word_embeddings=True, use_sliding_window=True,
                            sliding_window=6, max_window_layers=1, rope_parameters=rope("default")), ["k_proj", "v_proj", "gate_proj"]),
    "qwen3": ("Qwen3", dict(SMALL, hidden_size=12, num_attention_heads=2, num_key_value_heads=1, attention_bias=True,
                            rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=8)),
              ["q_proj", "v_proj", "down_proj"]),
    "gemma2": ("Gemma2", dict(SMALL, hidden_size=12, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
                              query_pre_attn_scalar=5, attn_logit_softcapping=16.0, final_logit_softcapping=2.0, sliding_window=5,
                              tie_word_embeddings=True, rope_parameters=rope("default")), ["q_proj", "o_proj", "down_proj"]),
    "gemma": ("Gemma", dict(SMALL, hidden_size=12, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
                            hidden_act="gelu", rope_parameters=rope("default")), ["q_proj", "o_proj", "down_proj"]),
    "phi": ("Phi", dict(SMALL, hidden_size=24, num_attention_heads=3, num_key_value_heads=1,
                        rope_parameters=rope("default", partial_rotary_factor=0.5)), ["q_proj", "dense", "fc1", "fc2"]),
    "phi-qk": ("Phi", dict(SMALL, hidden_size=24, num_attention_heads=3, num_key_value_heads=3, qk_layernorm=True,
                           rope_parameters=rope("default", partial_rotary_factor=0.75)), None),
    "qwen3-layers": ("Qwen3", dict(SMALL, num_hidden_layers=3, use_sliding_window=True, sliding_window=4, tie_word_embeddings=True,
                                   layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                                   rope_parameters=rope("default")), None),
    "linear": ("Llama", dict(SMALL, rope_parameters=rope("linear", factor=2.5)), None),
    "dynamic": ("Llama", dict(SMALL, rope_parameters=rope("dynamic", factor=3.0)), None),
    "llama3": ("Llama", dict(SMALL, rope_parameters=rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=3.0,
                                                         original_max_position_embeddings=12)), None),
    "yarn": ("Llama", dict(SMALL, rope_parameters=rope("yarn", 30.0, factor=4.0, original_max_position_embeddings=16, beta_fast=8.0,
                                                       beta_slow=0.5, mscale=2.0, mscale_all_dim=0.5, truncate=False)), None),
    "yarn-factor": ("Llama", dict(SMALL, rope_parameters=rope("yarn", 1000.0, factor=4.0, original_max_position_embeddings=16,
                                                              attention_factor=1.3)), None),
}

# ---- float64 where transformers uses float32 ----


def inverse_frequencies(config, length):
    p = config.rope_parameters
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dim = int(head_dim * p.get("partial_rotary_factor", 1.0))
    kind, base = p["rope_type"], p["rope_theta"]
    if kind == "dynamic":
        f, trained = p["factor"], config.max_position_embeddings
        base = base * ((f * max(length, trained) / trained) - (f - 1)) ** (dim / (dim - 2))
    inv = 1.0 / base ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    factor = 1.0
    if kind == "linear":
        inv = inv / p["factor"]
    if kind == "llama3":
        old = p["original_max_position_embeddings"]
        wave = 2 * math.pi / inv
        smooth = (old / wave - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
        mixed = (1 - smooth) * inv / p["factor"] + smooth * inv
        inv = torch.where(wave > old / p["low_freq_factor"], inv / p["factor"],
                          torch.where(wave < old / p["high_freq_factor"], inv, mixed))
    if kind == "yarn":
        inv, factor = yarn(p, inv, dim, base)
    return inv, factor


def yarn(p, inv, dim, base):
    f, old = p["factor"], p["original_max_position_embeddings"]

    def at(turns):
        return dim * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(base))

    def scale(m):
        return 1.0 if f <= 1 else 0.1 * m * math.log(f) + 1

    low, high = at(p.get("beta_fast") or 32), at(p.get("beta_slow") or 1)
    if p.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = torch.clamp((torch.arange(dim // 2, dtype=torch.float64) - low) / (high - low), 0, 1)
    factor = p.get("attention_factor")
    if factor is None and p.get("mscale") and p.get("mscale_all_dim"):
        factor = scale(p["mscale"]) / scale(p["mscale_all_dim"])
    return inv / f * ramp + inv * (1 - ramp), scale(1) if factor is None else factor


def rotary_forward(self, x, position_ids):
    length = int(position_ids.max()) + 1
    inv, factor = inverse_frequencies(self.config, length)
    kind = self.config.rope_parameters["rope_type"]
    theirs = (self.compute_default_rope_parameters(self.config) if kind == "default" else
              ROPE_INIT_FUNCTIONS[kind](self.config, device=None, seq_len=length))
    assert torch.allclose(inv.float(), theirs[0].float(), rtol=3e-6) and abs(factor - theirs[1]) < 1e-9, "formula differs"
    angle = position_ids[:, :, None].to(torch.float64) * inv
    angle = torch.cat((angle, angle), dim=-1)
    return (factor * angle.cos()).to(x.dtype), (factor * angle.sin()).to(x.dtype)


def normed(x, eps):
    wide = x if x.dtype == torch.float64 else x.float()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)


def norm_forward(self, x):
    return self.weight * normed(x, self.variance_epsilon).to(x.dtype)


def gemma_norm_forward(self, x):
    return ((1.0 + self.weight) * normed(x, self.eps)).to(x.dtype)


PEAKS = []


def attention_forward(module, query, key, value, attention_mask, scaling=None, softcap=None, **kwargs):
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.matmul(query, key.transpose(2, 3)) * (module.head_dim**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is not None:
        scores = scores.masked_fill(attention_mask < -1, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1)
    PEAKS.append(weights.detach()[:, :, weights.shape[2] // 2:].max(-1).values.mean().item())
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


for stem, module in MODULES.items():
    module.eager_attention_forward = attention_forward
    getattr(module, stem + "RotaryEmbedding").forward = rotary_forward
    if hasattr(module, stem + "RMSNorm"):
        getattr(module, stem + "RMSNorm").forward = gemma_norm_forward if stem in GEMMAS else norm_forward

# ---- weights ----

MASK = (1 << 64) - 1


def uniform(name, count):
    """count numbers in [-1, 1): splitmix64 of FNV-1a of the name, and the index."""
    seed = 14695981039346656037
    for byte in name.encode():
        seed = ((seed ^ byte) * 1099511628211) & MASK
    out = []
    for i in range(count):
        z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        out.append((z >> 11) / (1 << 52) - 1)
    return torch.tensor(out, dtype=torch.float64)


def weight_values(name, shape, centre):
    """Matrices of about unit gain, queries and keys larger so that attention is peaked; norms around `centre`, biases around 0."""
    u = uniform(name, math.prod(shape))
    if len(shape) == 2:
        gain = 4.0 if "q_proj.weight" in name or "k_proj.weight" in name else 1.7
        values = gain * math.sqrt(1 / shape[1]) * u
    elif name.endswith("bias"):
        values = 0.4 * u
    elif ".q_" in name or ".k_" in name:
        values = 2.2 + 0.5 * u
    else:
        values = centre + 0.4 * u
    return values.float().double().reshape(shape)


def fill(model, family):
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(weight_values(name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".default", ""), tuple(p.shape),
                                  0.0 if family in GEMMAS else 1.0))


def build(family, settings, classifier=False):
    config = getattr(transformers, family + "Config")(**settings, bos_token_id=1, eos_token_id=2, attn_implementation="eager",
                                                      **(dict(num_labels=LABELS) if classifier else {}))
    name = family + ("ForSequenceClassification" if classifier else "ForCausalLM")
    model = getattr(transformers, name)(config).double().eval()
    config.architectures = [name]
    fill(model, family)
    if family in GEMMAS:
        model.model.embed_tokens.embed_scale = torch.tensor(config.hidden_size**0.5, dtype=torch.float64)
    return model


# ---- what is compared ----


def make_rows(vocab, lengths, generator):
    rows = []
    for length in lengths:
        ids = torch.randint(4, vocab, (length,), generator=generator).tolist()
        rows.append(dict(ids=ids, labels=[-100] * (length // 3) + ids[length // 3:]))
    return rows


def loss_of(model, rows):
    """Mean over all targets, row by row: nothing is padded."""
    total, count, out = 0, 0, []
    for row in rows:
        result = model(input_ids=torch.tensor([row["ids"]]), output_hidden_states=True)
        target = torch.tensor(row["labels"][1:])
        total = total + torch.nn.functional.cross_entropy(result.logits[0, :-1], target, reduction="sum")
        count += int((target != -100).sum())
        out.append(result)
    return total / count, out


def states_of(results):
    """Hidden states (rows end to end) behind the embedding and every block; the last is taken before the final norm."""
    return {f"state.{i}": torch.cat([r.hidden_states[i][0] for r in results]).detach() for i in range(len(results[0].hidden_states) - 1)}


def train(model, batches):
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    start = {n: p.detach().clone() for n, p in params.items()}
    optimiser = torch.optim.AdamW(params.values(), **OPTIMISER)
    losses = []
    for rows in batches:
        optimiser.zero_grad()
        loss, _ = loss_of(model, rows)
        loss.backward()
        losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(params.values(), CLIP)
        optimiser.step()
    return losses, {n: p.detach() - start[n] for n, p in params.items()}


def bf16_error(family, settings, rows, exact):
    """Of the logits under PyTorch's own bf16 autocast."""
    model = build(family, settings).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = torch.cat([r.logits[0] for r in loss_of(model, rows)[1]]).double()
    return ((got - exact).norm() / exact.norm()).item()


def greedy(model, prompts):
    texts = []
    for prompt in prompts:
        ids = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
                             max_new_tokens=NEW_TOKENS, eos_token_id=None)
        texts.append(ids[0, len(prompt):].tolist())
    return texts


def make(name, family, settings, targets, root):
    generator = torch.Generator().manual_seed(7)
    model = build(family, settings)
    vocab = settings["vocab_size"]
    batches = [make_rows(vocab, (34, 22), generator) for _ in range(STEPS if targets else 1)]
    PEAKS.clear()
    loss, results = loss_of(model, batches[0])
    peak = min(PEAKS)
    assert peak > 0.5, f"{name}: attention is not peaked: {peak}"
    out = {"logits": torch.cat([r.logits[0] for r in results]).detach()}
    case = dict(config=json.loads(model.config.to_json_string()), batches=batches, loss=loss.item(), new_tokens=NEW_TOKENS)
    case["config"]["torch_dtype"] = "float32"
    prompts = [row["ids"][:n] for row, n in zip(make_rows(vocab, (30, 30), generator), (26, 9))]
    case.update(prompts=prompts, texts=greedy(model, prompts))
    if targets:
        case["bf16"] = bf16_error(family, settings, batches[0], out["logits"])
        out.update(states_of(results))
        loss.backward()
        out.update({f"grad.{n}": p.grad.detach() for n, p in model.named_parameters()})
        model.zero_grad()
        lora = get_peft_model(model, LoraConfig(r=2, lora_alpha=3, target_modules=targets))
        fill(lora, family)
        case["lora_losses"], delta = train(lora, batches)
        case.update(OPTIMISER, clip=CLIP, targets=targets)
        out.update({"delta." + n.removeprefix("base_model.model.").replace(".default", ""): d for n, d in delta.items()})
        classifier = build(family, settings, classifier=True)
        texts = [row["ids"] for row in make_rows(vocab, (11, 25, 7), generator)]
        texts[2] += [settings["pad_token_id"]] * 3
        case.update(classifier_config=json.loads(classifier.config.to_json_string()), classified=texts)
        out["labels"] = torch.cat([classifier(input_ids=torch.tensor([t])).logits for t in texts]).detach()
    save_file({n: t.contiguous() for n, t in out.items()}, os.path.join(root, name + ".safetensors"))
    with open(os.path.join(root, name + ".json"), "w") as f:
        json.dump(case, f, separators=(",", ":"))
        f.write("\n")
    print(f"{name}: loss {loss.item():.4f}, peak {peak:.3f}, text {case['texts'][0][:6]}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    os.makedirs(sys.argv[1], exist_ok=True)
    for case_name in sys.argv[2:] or CASES:
        make(case_name, *CASES[case_name], sys.argv[1])
