#!/usr/bin/env python3
"""Writes tests/golden/peft/: adapters that PEFT saved for the tiny models of llama.py, and what it computes with them in float64.

    venv/bin/python tools/golden/peft_adapters.py tests/golden     (packages as for llama.py, whose models must be there)

Every case is a directory as save_pretrained wrote it. expected.safetensors holds logits.CASE (of case.json's ids), for some
cases merged.CASE.PARAMETER (merge_and_unload) and grad.CASE.PARAMETER (of the mean cross-entropy), and logits.stack: two
adapters active at once, one of them times a weight. Cases under "refused" keep their config only.
"""
import json
import os
import shutil
import sys
import warnings

import torch
from peft import IA3Config, LoHaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import llama  # float64 rotary tables and norms

IDS = [3, 9, 27, 7, 21, 36, 0, 11, 45, 2, 18, 33]
LORA = dict(task_type="CAUSAL_LM")
CASES = {
    "list": ("llama-untied", dict(r=3, lora_alpha=5, lora_dropout=0.25, target_modules=["q_proj", "mlp.down_proj"])),
    "regex": ("llama-untied", dict(r=2, lora_alpha=3, use_rslora=True, target_modules=r".*layers\.1\.(self_attn\.[kv]_proj|mlp\.up_proj)")),
    "all-but": ("llama-untied", dict(r=2, target_modules="all-linear", exclude_modules=["o_proj", "model.layers.0.mlp.gate_proj"])),
    "all-but-regex": ("llama-tied", dict(r=2, target_modules="all-linear", exclude_modules=r".*\.0\..*|.*k_proj")),
    "patterns": ("llama-untied", dict(r=2, lora_alpha=3, use_rslora=True, target_modules="all-linear",
                                      rank_pattern={"layers.0.self_attn.q_proj": 5, r".*\.v_proj": 1, "v_proj": 4},
                                      alpha_pattern={"down_proj": 11, "^model.layers.1.mlp.up_proj": 7, r"1.self_attn.[qk]_proj": 2})),
    "layers": ("llama-untied", dict(r=2, target_modules=["gate_proj", "v_proj", "model.layers.0.mlp.up_proj"], layers_to_transform=[1])),
    "layers-pattern": ("llama-tied", dict(r=2, init_lora_weights="gaussian", target_modules=["o_proj", "k_proj"], layers_to_transform=0,
                                          layers_pattern="layers")),
    "saved": ("llama-untied", dict(r=2, target_modules=["q_proj"], modules_to_save=["lm_head", "norm", "embed_tokens"])),
    "saved-linear": ("llama-untied", dict(r=2, target_modules="all-linear", modules_to_save=["up_proj"])),
    "saved-tied": ("llama-tied", dict(r=2, target_modules=["v_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
}
MERGED, GRADIENTS = ("regex", "saved"), ("saved",)
STACK, WEIGHTS = ("list", "patterns"), (1.0, -0.5)
REFUSED = {
    "use_dora": LoraConfig(use_dora=True, target_modules=["q_proj"], **LORA),
    "bias": LoraConfig(bias="all", target_modules=["q_proj"], **LORA),
    "lora_bias": LoraConfig(lora_bias=True, target_modules=["q_proj"], **LORA),
    "trainable_token_indices": LoraConfig(trainable_token_indices=[1], target_modules=["q_proj"], **LORA),
    "layer_replication": LoraConfig(layer_replication=[(0, 2), (0, 2)], target_modules=["q_proj"], **LORA),
    "init_lora_weights": LoraConfig(init_lora_weights="pissa", target_modules=["q_proj"], r=2, **LORA),
    "init_lora_weights-olora": LoraConfig(init_lora_weights="olora", target_modules=["q_proj"], r=2, **LORA),
    "target_modules": LoraConfig(target_modules=["q_proj", "lm_head"], **LORA),
    "modules_to_save": LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], **LORA),
    "peft_type": LoHaConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "peft_type-ia3": IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM"),
}


def base(root, name):
    directory = os.path.join(root, name)
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(directory, attn_implementation="sdpa")).double()
    state = {k: v.double() for k, v in load_file(os.path.join(directory, "model.safetensors")).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("lm_head" in m for m in missing)
    model.tie_weights()
    return model


def logits_of(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS])).logits[0].double().contiguous()


def stir(model, generator):
    for name, p in model.named_parameters():
        if p.requires_grad:
            with torch.no_grad():
                fresh = 0.3 * torch.randn(p.shape, generator=generator)
                p.copy_(((p if "lora_" not in name else 0) + fresh).float().double())


def save(model, directory):
    model.save_pretrained(directory)
    path = os.path.join(directory, "adapter_model.safetensors")
    save_file({k: v.float().contiguous() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    os.remove(os.path.join(directory, "README.md"))


def make(root):
    home, out = os.path.join(root, "peft"), {}
    shutil.rmtree(home, ignore_errors=True)
    generator = torch.Generator().manual_seed(11)
    for name, (on, settings) in CASES.items():
        model = get_peft_model(base(root, on), LoraConfig(**settings, **LORA)).double().eval()
        stir(model, generator)
        save(model, os.path.join(home, name))
        loaded = PeftModel.from_pretrained(base(root, on), os.path.join(home, name)).double().eval()
        out[f"logits.{name}"] = logits_of(loaded)
        assert (out[f"logits.{name}"] - logits_of(base(root, on))).norm() > 0.1, name
        if name in GRADIENTS:
            trained = PeftModel.from_pretrained(base(root, on), os.path.join(home, name), is_trainable=True).double()
            loss, _ = llama.loss_of(trained, [dict(ids=IDS, labels=IDS)])
            loss.backward()
            for n, p in trained.named_parameters():
                if p.requires_grad:
                    n = n.removeprefix("base_model.model.").replace("modules_to_save.", "").replace(".default", "")
                    out[f"grad.{name}.{n}"] = p.grad
        if name in MERGED:
            before = dict(base(root, on).named_parameters())
            for n, p in loaded.merge_and_unload().named_parameters():
                if not torch.equal(p, before[n]):
                    out[f"merged.{name}.{n}"] = p.detach()
    both = PeftModel.from_pretrained(base(root, "llama-untied"), os.path.join(home, STACK[0]), adapter_name="0")
    both.load_adapter(os.path.join(home, STACK[1]), adapter_name="1")
    both.base_model.set_adapter(["0", "1"])
    for module in both.modules():
        for i, weight in enumerate(WEIGHTS):
            if isinstance(getattr(module, "scaling", None), dict) and str(i) in module.scaling:
                module.scaling[str(i)] *= weight
    out["logits.stack"] = logits_of(both.double().eval())
    for name, config in REFUSED.items():
        if name != "layer_replication":
            get_peft_model(base(root, "llama-tied").float(), config).save_pretrained(os.path.join(home, "refused", name))
        else:
            config.save_pretrained(os.path.join(home, "refused", name))
        for file in os.listdir(os.path.join(home, "refused", name)):
            keep = file == "adapter_config.json" or (name in ("modules_to_save", "target_modules") and file.endswith("safetensors"))
            if not keep:
                os.remove(os.path.join(home, "refused", name, file))
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(home, "expected.safetensors"))
    cases = [dict(name=n, base=on) for n, (on, _) in CASES.items()]
    with open(os.path.join(home, "case.json"), "w") as f:
        json.dump(dict(ids=IDS, cases=cases, refused=list(REFUSED), stack=[dict(name=n, weight=w) for n, w in zip(STACK, WEIGHTS)]),
                  f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    make(sys.argv[1])
