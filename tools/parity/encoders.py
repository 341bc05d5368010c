#!/usr/bin/env python3
"""Compares the program's encoders with transformers on random configs.

    python tools/parity/encoders.py BUILD [ROUNDS=20] [SEED=0]

Every round draws a BERT or DeBERTa-v2 config, writes a checkpoint with random weights and a small tokenizer, and compares, in
float64 on the device ref: embeddings (temper embed) and, with a classifier, logits (temper classify --json) of random texts and
pairs. The program prints fp32, so the bound is 1e-6 of the norm. Exit code 77: torch, transformers or tokenizers
is not there.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))

try:
    import torch
    from safetensors.torch import save_file
    from transformers import (BertConfig, BertForSequenceClassification, BertModel, DebertaV2Config,
                              DebertaV2ForSequenceClassification, DebertaV2Model)

    import encoders
except ImportError as missing:
    print(f"SKIP: parity needs Python with torch, transformers and tokenizers ({missing})")
    sys.exit(77)

BOUND = 1e-6


def draw_config(rng):
    heads = rng.choice([1, 2, 3, 4])
    config = dict(vocab_size=rng.randrange(50, 120), hidden_size=heads * rng.randrange(2, 12), num_attention_heads=heads,
                  intermediate_size=rng.randrange(3, 60), num_hidden_layers=rng.randrange(1, 4),
                  max_position_embeddings=rng.randrange(16, 90), type_vocab_size=rng.choice([1, 2, 2]),
                  hidden_act=rng.choice(["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh"]),
                  layer_norm_eps=rng.choice([1e-12, 1e-7, 1e-5, 1e-2]))
    labels = rng.choice([0, 1, 2, 5])
    if labels:
        config["id2label"] = {i: f"label {i}" for i in range(labels)}
    if rng.random() < 0.4:
        return BertConfig(**config), (BertForSequenceClassification if labels else BertModel)
    config["type_vocab_size"] = rng.choice([0, 0, 2])
    config["position_biased_input"] = rng.random() < 0.4
    config["pos_att_type"] = rng.choice([["c2p", "p2c"], ["p2c", "c2p"], ["c2p"], ["p2c"], []])
    config["relative_attention"] = rng.random() < 0.8
    if config["relative_attention"]:
        config["share_att_key"] = rng.random() < 0.5
        config["max_relative_positions"] = rng.choice([-1, rng.randrange(12, 60)])
        if rng.random() < 0.7:
            config["position_buckets"] = rng.randrange(2, 16)
        config["norm_rel_ebd"] = rng.choice(["none", "layer_norm"])
    if rng.random() < 0.3:
        config["embedding_size"] = rng.randrange(3, 20)
    config["pooler_hidden_act"] = rng.choice(["gelu", "tanh", "relu"])
    return DebertaV2Config(**config), (DebertaV2ForSequenceClassification if labels else DebertaV2Model)


def draw_text(rng):
    return " ".join(rng.choice(["the", "lazy", "Dog", "cake,", "jumps!", "how", "unbaked", "fox's", "1", "zz"])
                    for _ in range(rng.choice([1, 2, 5, 12, 60])))


def states(model, config, encoding):
    inputs = dict(input_ids=torch.tensor([encoding.ids]))
    if config.type_vocab_size > 1:
        inputs["token_type_ids"] = torch.tensor([encoding.type_ids])
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True)


def ask(temper, command, directory, lines):
    run = subprocess.run([temper, command, "--model", directory, "--device", "ref", "--precision", "fp64", "--json", "--quiet"],
                         input="".join(line + "\n" for line in lines), capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{command}: {run.stderr}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def compare(what, got, want):
    error = ((torch.tensor(got, dtype=torch.float64) - want).norm() / want.norm().clamp(min=1e-12)).item()
    if not error <= BOUND:
        sys.exit(f"{what}: error {error:.3g}")
    return error


def one_round(temper, rng, generator, directory):
    config, kind = draw_config(rng)
    model = kind(config).eval()
    encoders.random_weights(model, generator)
    save_file({n: p.detach().clone() for n, p in model.named_parameters()}, os.path.join(directory, "model.safetensors"),
              metadata={"format": "pt"})
    config.architectures = [kind.__name__]
    config.save_pretrained(directory)
    tokenizer = encoders.make_tokenizer(rng.choice(["wordpiece", "unigram", "bpe"]), config.vocab_size)
    tokenizer.save(os.path.join(directory, "tokenizer.json"))
    tokenizer.enable_truncation(config.max_position_embeddings, strategy="longest_first")
    model = model.double()
    texts = [draw_text(rng) for _ in range(6)]
    modes = rng.sample(sorted(encoders.POOLING), rng.randrange(1, 4))
    modes.sort(key=list(encoders.POOLING).index)
    normalise = rng.random() < 0.5
    encoders.write_modules(directory, dict(pooling=modes, normalise=normalise), config)
    os.remove(os.path.join(directory, "sentence_bert_config.json"))
    worst = 0
    for text, row in zip(texts, ask(temper, "embed", directory, texts)):
        hidden = states(model, config, tokenizer.encode(text)).hidden_states[-1][0]
        want = torch.cat([encoders.POOLING[mode](hidden) for mode in modes])
        want = torch.nn.functional.normalize(want, dim=0) if normalise else want
        worst = max(worst, compare(f"{config} {text}", row["embedding"], want))
    if "Classification" in kind.__name__:
        pairs = [(t, draw_text(rng) if config.type_vocab_size != 1 and rng.random() < 0.5 else None) for t in texts]
        rows = ask(temper, "classify", directory, [a + ("\t" + b if b else "") for a, b in pairs])
        for (a, b), row in zip(pairs, rows):
            out = states(model, config, tokenizer.encode(a, b) if b else tokenizer.encode(a))
            worst = max(worst, compare(f"{config} {a} {b}", row["logits"], out.logits[0]))
    return kind.__name__, worst


def main(build, rounds="20", seed="0"):
    temper = os.path.join(build, "temper")
    rng, generator = random.Random(int(seed)), torch.Generator().manual_seed(int(seed))
    torch.set_num_threads(1)
    worst, kinds = 0, {}
    for _ in range(int(rounds)):
        with tempfile.TemporaryDirectory() as directory:
            name, error = one_round(temper, rng, generator, directory)
        kinds[name] = kinds.get(name, 0) + 1
        worst = max(worst, error)
    print(f"encoders: {rounds} rounds agree with transformers, worst error {worst:.2g} ({kinds})")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
