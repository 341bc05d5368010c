#!/usr/bin/env python3
"""Adapters between Temper and PEFT, both ways, as installed: PEFT reads what Temper trained, Temper what PEFT trained.

    tools/parity/adapters.py BUILD        exits 0 if all agree, 1 if not, 77 where Python lacks the packages

Every pair is compared by logits: PEFT's model with the adapter attached against the checkpoint that `temper merge` wrote, loaded
by transformers. fp32; a relative error of 1e-5 is allowed.
"""
import json
import os
import subprocess
import sys
import tempfile
import warnings

try:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, logging
except ImportError as missing:
    print(f"SKIP: parity needs Python with torch, transformers and peft ({missing})")
    sys.exit(77)

BOUND = 1e-5
SHAPE = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=32, intermediate_size=48, num_hidden_layers=3,
             num_attention_heads=4, num_key_value_heads=2, vocab_size=259, max_position_embeddings=128, rms_norm_eps=1e-5,
             hidden_act="silu", initializer_range=0.15, tie_word_embeddings=False, torch_dtype="float32", bos_token_id=256, eos_token_id=258)
# Of rank_pattern the first key that matches counts, and PEFT sorts the keys when it saves: here they are sorted already, or PEFT
# itself could not load what it saved.
FROM_PEFT = {
    "a list": dict(r=4, lora_alpha=7, target_modules=["q_proj", "down_proj"]),
    "a regular expression, rsLoRA": dict(r=4, lora_alpha=7, use_rslora=True, target_modules=r".*\.[12]\..*_proj"),
    "patterns": dict(r=4, target_modules="all-linear", rank_pattern={r"layers\.1\..*": 6, "v_proj": 2}, alpha_pattern={"up_proj": 3}),
    "some layers": dict(r=4, target_modules=["gate_proj", "k_proj"], layers_to_transform=[0, 2], exclude_modules=["0.mlp.gate_proj"]),
    "whole modules": dict(r=4, target_modules=["v_proj"], modules_to_save=["lm_head", "norm"]),
}
FROM_TEMPER = {
    "all linears": ["--lora-rank", "4", "--lora-alpha", "9", "--lora-targets", "all-linear"],
    "rsLoRA": ["--lora-rank", "3", "--rslora", "--lora-targets", "q_proj,up_proj"],
}


def write_inputs(root, config):
    """config.json, a tokenizer and rows to train on; the paths of the latter two."""
    with open(os.path.join(root, "config.json"), "w") as f:
        json.dump(config, f)
    tokenizer, rows = os.path.join(root, "tokenizer"), os.path.join(root, "rows.jsonl")
    os.makedirs(tokenizer)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["<s>", "<|im_start|>", "<|im_end|>"])
    made.save(os.path.join(tokenizer, "tokenizer.json"))
    with open(os.path.join(tokenizer, "tokenizer_config.json"), "w") as f:
        json.dump(dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="<|im_end|>"), f)
    with open(rows, "w") as f:
        for i in range(16):
            f.write(json.dumps(dict(prompt=f"what is {i}?", completion=f"it is {i * 7}, as ever")) + "\n")
    return rows, tokenizer


def write_model(temper, root):
    rows, tokenizer = write_inputs(root, SHAPE)
    run(temper, "init", "--config", os.path.join(root, "config.json"), "--tokenizer", tokenizer, "--seed", "5", os.path.join(root, "base"))
    return os.path.join(root, "base"), rows


def run(temper, *arguments):
    done = subprocess.run([temper, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"temper {' '.join(arguments)}: {done.stderr.strip()}")


def logits(model):
    ids = torch.arange(0, 60, 2).reshape(2, 15)
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits.double()


def plain(directory):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


checked = []


def compare(temper, root, base, what, adapters):
    """adapters: (directory, weight); several are added up."""
    merged = os.path.join(root, "merged")
    named = [a for directory, weight in adapters for a in ("--adapter", directory if weight == 1 else f"{directory}={weight}")]
    run(temper, "merge", "--model", base, *named, "--out", merged, "--overwrite")
    theirs = PeftModel.from_pretrained(plain(base), adapters[0][0], adapter_name="0")
    for i, (directory, _) in enumerate(adapters[1:], 1):
        theirs.load_adapter(directory, adapter_name=str(i))
    theirs.base_model.set_adapter([str(i) for i in range(len(adapters))])
    for module in theirs.modules():
        for i, (_, weight) in enumerate(adapters):
            if isinstance(getattr(module, "scaling", None), dict) and str(i) in module.scaling:
                module.scaling[str(i)] *= weight
    want, got, without = logits(theirs), logits(plain(merged)), logits(plain(base))
    error, effect = ((got - want).norm() / want.norm()).item(), ((want - without).norm() / want.norm()).item()
    good = error <= BOUND and effect > 100 * BOUND
    checked.append(error)
    if not good:
        print(f"{what}: error {error:.2g}, the adapters' effect {effect:.2g}")
    return good


def main(temper):
    good = True
    with tempfile.TemporaryDirectory() as root:
        base, rows = write_model(temper, root)
        made = []
        for i, (what, settings) in enumerate(FROM_PEFT.items()):
            torch.manual_seed(i)
            model = get_peft_model(plain(base), LoraConfig(task_type="CAUSAL_LM", **settings))
            for p in model.parameters():
                if p.requires_grad:
                    p.data += 0.1 * torch.randn_like(p)
            made.append(os.path.join(root, f"peft-{i}"))
            model.save_pretrained(made[-1])
            good &= compare(temper, root, base, f"PEFT to Temper, {what}", [(made[-1], 1)])
        good &= compare(temper, root, base, "PEFT to Temper, two with weights", [(made[0], 1), (made[2], -0.25)])
        for i, (what, options) in enumerate(FROM_TEMPER.items()):
            out = os.path.join(root, f"temper-{i}")
            run(temper, "finetune", "--model", base, "--data", rows, "--steps", "8", "--lr", "2e-2", *options, "--out", out)
            good &= compare(temper, root, base, f"Temper to PEFT, {what}", [(out, 1)])
        for what, number in (("patterns", 2), ("whole modules", 4)):
            out = os.path.join(root, f"on-{number}")
            run(temper, "finetune", "--model", base, "--adapter", made[number], "--continue-adapter", "--data", rows, "--steps", "8",
                "--lr", "1e-2", "--out", out)
            good &= compare(temper, root, base, f"PEFT to Temper, trained on, and back, {what}", [(out, 1)])
    print(f"adapters: {len(checked)} comparisons of Temper and PEFT, worst error {max(checked):.2g}" + ("" if good else ": FAILED"))
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    warnings.simplefilter("ignore")
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    sys.exit(main(os.path.join(os.path.abspath(sys.argv[1]), "temper")))
