#!/usr/bin/env python3
"""Directories that the program writes, as transformers and PEFT load them: of init, finetune, merge and adapters, in every family.

    tools/parity/directories.py BUILD        exits 0 if all agree, 1 if not, 77 where Python lacks the packages

A random config with keys that nobody knows is made a checkpoint by `temper init`, tuned in full and with an adapter, and merged.
Every directory must load through transformers' Auto classes (and PEFT) with no weight missing or left over, give the logits that
Temper computes (float64, 1e-8), keep every key of the config and the tokenizer's files, and name the same text's tokens alike.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

import families_live as live  # quietens transformers

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import adapters

STRANGE = {"note_of_another_program": {"a": [1, 2.5, None, "\u00e9"], "b": True}, "x_version": "7b-\u2581", "x_count": 3}
TEXT = "What is 4? It is 28, as ever \u00e9\u2713."


def close(what, got, want):
    error = ((got - want).norm() / want.norm()).item()
    assert error <= live.BOUND, f"{what}: error {error:.3g}"
    return error


def load(family, hidden, path):
    model, report = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], (path, report)
    assert type(model).__name__ == family + "ForCausalLM", type(model)
    model = model.double().eval()
    if family in ("Gemma", "Gemma2"):
        model.model.embed_tokens.embed_scale = torch.tensor(hidden**0.5, dtype=torch.float64)
    return model


def same_config(path, want):
    with open(os.path.join(path, "config.json")) as f:
        got = json.load(f)
    changed = {k: (got.get(k), v) for k, v in want.items() if got.get(k) != v}
    assert not changed, f"{path}: config.json differs: {changed}"


def same_tokens(temper, path):
    done = subprocess.run([temper, "tokenize", "--model", path, "--json"], input=TEXT, capture_output=True, text=True, check=True)
    ids = json.loads(done.stdout)["ids"]
    assert ids == AutoTokenizer.from_pretrained(path)(TEXT)["input_ids"], (path, ids)


def one(build, family, root, r):
    temper = os.path.join(build, "temper")
    base, full, tuned, merged = (os.path.join(root, name) for name in ("base", "full", "adapter", "merged"))
    config = dict(live.settings(r, family), vocab_size=259, architectures=[family + "ForCausalLM"], torch_dtype="float32",
                  initializer_range=0.15, bos_token_id=256, eos_token_id=258, **STRANGE)
    config["model_type"] = family.lower()
    rows, tokenizer = adapters.write_inputs(root, config)
    adapters.run(temper, "init", "--config", os.path.join(root, "config.json"), "--tokenizer", tokenizer, "--seed", "5", base)
    data = ["--model", base, "--data", rows, "--steps", "3", "--batch", "4"]
    adapters.run(temper, "finetune", *data, "--lr", "1e-3", "--out", full)
    adapters.run(temper, "finetune", *data, "--lr", "2e-2", "--lora-rank", "3", "--lora-targets", "all-linear", "--out", tuned)
    adapters.run(temper, "merge", "--model", base, "--adapter", tuned, "--out", merged)
    texts = [[r.randrange(256) for _ in range(n)] for n in (5, 30)]
    worst, logits = 0, {}
    for name, path, adapter in (("init", base, "-"), ("finetune", full, "-"), ("adapter", base, tuned), ("merge", merged, "-")):
        model = load(family, config["hidden_size"], path)
        same_config(path, config)
        same_tokens(temper, path)
        if adapter != "-":
            model = PeftModel.from_pretrained(model, adapter).double().eval()
        logits[name] = live.logits_of(model, texts, False)
        worst = max(worst, close(f"{family}, {name}", live.temper(build, path, adapter, "-", texts), logits[name]))
    for name in ("finetune", "adapter"):
        assert (logits[name] - logits["init"]).norm() > 1e-3 * logits["init"].norm(), f"{family}: {name} changed nothing"
    rounding = (logits["merge"] - logits["adapter"]).norm() / logits["adapter"].norm()  # the merged weights are float32
    assert rounding < 1e-5, f"{family}: merging moves the logits by {rounding:.3g}"
    return worst


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    errors = []
    for stem in live.families.MODULES:
        with tempfile.TemporaryDirectory() as directory:
            errors.append(one(os.path.abspath(sys.argv[1]), stem, directory, random.Random(stem)))
    print(f"directories: init, finetune, adapter and merge of {len(errors)} families load in transformers and PEFT with the same logits, "
          f"worst error {max(errors):.2g}; unknown keys kept")
