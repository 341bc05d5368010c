#!/usr/bin/env python3
"""Compares Temper with transformers and PEFT, live, on random configs of every family.

    tools/parity/families_live.py BUILD_DIR [ROUNDS [SEED]]         (make parity)

A random checkpoint is written by transformers, with an adapter by PEFT; build/tools/parity_logits computes its logits in
float64 and writes both again; transformers and PEFT load what was written. All logits must agree to 1e-8, and every key of both
configs must be kept. Where Python has no transformers or PEFT, this says so and ends with 77.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings

try:
    import torch
    import transformers
    from peft import LoraConfig, PeftModel, get_peft_model
except ImportError as missing:
    print(f"SKIP: parity needs Python with torch, transformers and peft ({missing})")
    sys.exit(77)

transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()
warnings.simplefilter("ignore")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden"))
import families  # noqa: E402  (makes transformers compute in float64)

BOUND = 1e-8
TARGETS = dict(Phi=["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"])
GATED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def rope(r, family, trained):
    kind = r.choice(["default", "linear", "dynamic", "llama3", "yarn"])
    more = dict(factor=r.choice([1.5, 2.0, 4.0])) if kind != "default" else {}
    if kind in ("llama3", "yarn"):
        more["original_max_position_embeddings"] = r.randint(6, trained)
    if kind == "llama3":
        more.update(low_freq_factor=1.0, high_freq_factor=r.choice([2.0, 4.0]))
    if kind == "yarn":
        more.update(r.choice([{}, dict(truncate=False), dict(beta_fast=6.0, beta_slow=0.7), dict(mscale=1.5, mscale_all_dim=0.5),
                              dict(attention_factor=1.2)]))
    if family == "Phi":
        more["partial_rotary_factor"] = r.choice([0.5, 1.0])
    return families.rope(kind, r.choice([50.0, 10000.0]), **more)


def settings(r, family):
    heads, layers, trained = r.choice([2, 4, 6]), r.randint(1, 3), r.randint(8, 24)
    kv_heads = r.choice([k for k in (1, 2, 3, 6) if heads % k == 0])
    out = dict(hidden_size=heads * r.choice([4, 6]), intermediate_size=r.randint(9, 30), num_hidden_layers=layers,
               num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=r.randint(20, 40), pad_token_id=3,
               max_position_embeddings=trained, tie_word_embeddings=r.random() < 0.5, rope_parameters=rope(r, family, trained))
    window, kinds = r.randint(2, 12), [r.choice(["full_attention", "sliding_attention"]) for _ in range(layers)]
    out["head_dim"] = r.choice([4, 8])
    if family == "Llama":
        out.update(attention_bias=r.random() < 0.5, mlp_bias=r.random() < 0.5)
    if family == "Mistral":
        out.update(sliding_window=r.choice([None, window]))
    if family in ("Qwen2", "Qwen3"):
        out.update(r.choice([{}, dict(use_sliding_window=True, sliding_window=window, max_window_layers=r.randint(0, layers)),
                             dict(use_sliding_window=True, sliding_window=window, layer_types=kinds)]))
    if family in ("Qwen3", "Gemma2"):
        out.update(attention_bias=r.random() < 0.5)
    if family == "Gemma2":
        out.update(sliding_window=window, query_pre_attn_scalar=r.randint(3, 12), attn_logit_softcapping=r.choice([None, 12.0]),
                   final_logit_softcapping=r.choice([None, 3.0]))
    if family == "Phi":
        del out["head_dim"]
        out.update(hidden_size=heads * 8, qk_layernorm=r.random() < 0.5, layer_norm_eps=r.choice([1e-5, 1e-3]))
    return out


def logits_of(model, texts, classifier):
    with torch.no_grad():
        each = [model(input_ids=torch.tensor([t])).logits[0] for t in texts]
    return torch.cat([e.reshape(-1) for e in each])


def compare(what, got, want):
    error = ((got - want).norm() / want.norm()).item()
    assert error <= BOUND, f"{what}: error {error:.3g}"
    return error


def temper(build, model, adapter, out, texts):
    lines = "".join(" ".join(map(str, t)) + "\n" for t in texts)
    done = subprocess.run([os.path.join(build, "tools", "parity_logits"), model, adapter, out], input=lines.encode(),
                          stdout=subprocess.PIPE, check=True)
    return torch.frombuffer(bytearray(done.stdout), dtype=torch.float64)


def again(family, chosen, path, classifier):
    """A model of ours with the weights that are in `path`."""
    kind = getattr(transformers, family + ("ForSequenceClassification" if classifier else "ForCausalLM"))
    model, report = kind.from_pretrained(path, attn_implementation="eager", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    model = model.double().eval()
    if family in ("Gemma", "Gemma2"):
        model.model.embed_tokens.embed_scale = torch.tensor(chosen["hidden_size"]**0.5, dtype=torch.float64)
    return model


def strange(directory, name):
    """Keys that nobody knows."""
    path = os.path.join(directory, name)
    with open(path) as f:
        config = json.load(f)
    with open(path, "w") as f:
        json.dump(dict(config, x_note={"a": [1, 2.5, None, "\u00e9"]}, x_version="7\u2581b"), f)


def kept(before, after, name):
    """Every key but the dtype's spelling."""
    values = []
    for directory in (before, after):
        with open(os.path.join(directory, name)) as f:
            values.append({k: v for k, v in json.load(f).items() if k not in ("dtype", "torch_dtype")})
    different = {k: (v, values[1].get(k)) for k, v in values[0].items() if k not in values[1] or values[1][k] != v}
    assert not different, f"{name} written again: {different}"


def one(r, build, family, root):
    chosen, classifier = settings(r, family), r.random() < 0.25
    texts = [[r.randrange(4, chosen["vocab_size"]) for _ in range(r.randint(2, 30))] for _ in range(3)]
    paths = {k: os.path.join(root, k) for k in ("hf", "peft", "out")}
    model = families.build(family, chosen, classifier)
    want = logits_of(model, texts, classifier)
    model.float().save_pretrained(paths["hf"])
    strange(paths["hf"], "config.json")
    worst = [compare("logits", temper(build, paths["hf"], "-", "-", texts), want)]
    if not classifier:
        lora = get_peft_model(again(family, chosen, paths["hf"], False),
                              LoraConfig(r=2, lora_alpha=3, target_modules=r.sample(TARGETS.get(family, GATED), 3),
                                         use_rslora=r.random() < 0.5, task_type="CAUSAL_LM")).double().eval()
        families.fill(lora, family)
        want = logits_of(lora, texts, False)
        lora.float().save_pretrained(paths["peft"])
        strange(paths["peft"], "adapter_config.json")
        worst.append(compare("adapter", temper(build, paths["hf"], paths["peft"], paths["out"], texts), want))
        kept(paths["peft"], os.path.join(paths["out"], "adapter"), "adapter_config.json")
        written = again(family, chosen, os.path.join(paths["out"], "model"), False)
        written = PeftModel.from_pretrained(written, os.path.join(paths["out"], "adapter")).double().eval()
    else:
        temper(build, paths["hf"], "-", paths["out"], texts)
        written = again(family, chosen, os.path.join(paths["out"], "model"), True)
    kept(paths["hf"], os.path.join(paths["out"], "model"), "config.json")
    worst.append(compare("written again", logits_of(written, texts, classifier), want))
    return max(worst)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    rounds, seed = (int(x) for x in (sys.argv[2:] + ["3", "1"][len(sys.argv) - 2:])[:2])
    torch.set_num_threads(1)
    worst = 0
    for number in range(rounds):
        for stem in families.MODULES:
            with tempfile.TemporaryDirectory() as directory:
                r = random.Random(f"{seed} {number} {stem}")
                try:
                    error = one(r, sys.argv[1], stem, directory)
                except Exception:
                    print(f"{stem}, round {number} of seed {seed} failed; its config: {settings(random.Random(f'{seed} {number} {stem}'), stem)}")
                    raise
            worst = max(worst, error)
    print(f"families: {rounds} rounds of {len(families.MODULES)} families agree with transformers and PEFT, worst error {worst:.2g}")
