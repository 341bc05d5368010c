#!/usr/bin/env python3
"""Writes tests/golden/encoders: tiny BERT and DeBERTa-v2 checkpoints, and what transformers computes with them in float64.

    python tools/golden/encoders.py tests/golden/encoders

Every directory holds a checkpoint as transformers (and sentence-transformers) lay it out; case.json: texts as ids (`second`: where
the second text of a pair begins), `flips`: keys of config.json with another value that fits the same weights, `refused`: keys whose
other value does not; expected.safetensors: last hidden states of all texts end to end, embeddings, logits, and per flip the
embeddings or logits under it. Pooling is written down here from its definition. Weights make attention peaked, so that a wrong
bucket, scale or mask shows. buckets.json: DeBERTa's bucket of every distance.

Needs torch, transformers, tokenizers.
"""
import json
import math
import os
import shutil
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (BertConfig, BertForSequenceClassification, BertModel, DebertaV2Config, DebertaV2ForSequenceClassification,
                          DebertaV2Model)
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

POOLING = {
    "cls": lambda x: x[0],
    "max": lambda x: x.max(0).values,
    "mean": lambda x: x.mean(0),
    "mean_sqrt_len_tokens": lambda x: x.sum(0) / math.sqrt(len(x)),
    "weightedmean": lambda x: (x * torch.arange(1, len(x) + 1, dtype=x.dtype)[:, None]).sum(0) / (len(x) * (len(x) + 1) / 2),
    "lasttoken": lambda x: x[-1],
}
FLAGS = {"cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens", "mean": "pooling_mode_mean_tokens",
         "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens", "weightedmean": "pooling_mode_weightedmean_tokens",
         "lasttoken": "pooling_mode_lasttoken"}

CASES = {
    "bert-sentence": dict(
        model=BertModel, config=dict(vocab_size=97, hidden_size=12, num_attention_heads=3, intermediate_size=20, num_hidden_layers=2,
                                     max_position_embeddings=40), tokenizer="wordpiece", pooling=["mean"], normalise=True,
        flips=dict(hidden_act="relu", layer_norm_eps=0.5, num_attention_heads=2),
        refused=dict(type_vocab_size=1, max_position_embeddings=41, hidden_size=6, intermediate_size=21, num_hidden_layers=1,
                     vocab_size=96)),
    "bert-pools": dict(
        model=BertModel, config=dict(vocab_size=31, hidden_size=8, num_attention_heads=2, intermediate_size=9, num_hidden_layers=1,
                                     max_position_embeddings=24, type_vocab_size=1, hidden_act="relu", layer_norm_eps=1e-3),
        pooling=["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"], normalise=False, pairs=False,
        flips=dict(hidden_act="gelu_new", layer_norm_eps=0.5, num_attention_heads=1), refused=dict(type_vocab_size=2)),
    "bert-classifier": dict(
        model=BertForSequenceClassification,
        config=dict(vocab_size=61, hidden_size=16, num_attention_heads=2, intermediate_size=24, num_hidden_layers=2,
                    max_position_embeddings=33, hidden_act="gelu_new", layer_norm_eps=1e-5,
                    id2label={0: "calm", 1: "loud", 2: "odd"}, problem_type="multi_label_classification"),
        flips=dict(hidden_act="silu", layer_norm_eps=0.5, num_attention_heads=4),
        refused=dict(type_vocab_size=3, id2label={"0": "calm", "1": "loud"})),
    "deberta-v3": dict(
        model=DebertaV2ForSequenceClassification,
        config=dict(vocab_size=83, hidden_size=12, num_attention_heads=2, intermediate_size=16, num_hidden_layers=3,
                    max_position_embeddings=48, relative_attention=True, position_buckets=8, max_relative_positions=-1,
                    norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False,
                    type_vocab_size=0, id2label={0: "safe", 1: "harmful"}), tokenizer="unigram",
        flips=dict(hidden_act="tanh", layer_norm_eps=0.5, num_attention_heads=3, max_relative_positions=20, pooler_hidden_act="tanh",
                   **{"pos_att_type": ["c2p"], "pos_att_type ": "p2c", "pos_att_type  ": []}),
        refused=dict(position_buckets=9, norm_rel_ebd="none", share_att_key=False, position_biased_input=True, type_vocab_size=2,
                     relative_attention=False, embedding_size=6)),
    "deberta-both": dict(
        model=DebertaV2Model,
        config=dict(vocab_size=45, hidden_size=8, num_attention_heads=2, intermediate_size=10, num_hidden_layers=2,
                    max_position_embeddings=36, relative_attention=True, max_relative_positions=6, pos_att_type="c2p|p2c",
                    type_vocab_size=2, embedding_size=5, hidden_act="gelu_pytorch_tanh"),
        flips=dict(hidden_act="relu", layer_norm_eps=0.5, num_attention_heads=4),
        refused=dict(max_relative_positions=7, position_buckets=5, share_att_key=True, pos_att_type="c2p", type_vocab_size=0,
                     position_biased_input=False, norm_rel_ebd="layer_norm", embedding_size=8)),
    "deberta-content": dict(
        model=DebertaV2Model,
        config=dict(vocab_size=37, hidden_size=9, num_attention_heads=3, intermediate_size=7, num_hidden_layers=2,
                    max_position_embeddings=64, relative_attention=True, position_buckets=7, max_relative_positions=30,
                    norm_rel_ebd="layer_norm", pos_att_type=["c2p"], position_biased_input=False),
        pooling=["cls", "mean"], normalise=True, flips=dict(layer_norm_eps=0.5, num_attention_heads=1, max_relative_positions=11),
        refused=dict(pos_att_type=["c2p", "p2c"], norm_rel_ebd="none")),
    "deberta-position": dict(
        model=DebertaV2ForSequenceClassification,
        config=dict(vocab_size=29, hidden_size=8, num_attention_heads=4, intermediate_size=12, num_hidden_layers=2,
                    max_position_embeddings=32, relative_attention=True, position_buckets=4, pos_att_type="p2c", num_labels=1,
                    pooler_hidden_act="relu", hidden_act="silu"),
        flips=dict(hidden_act="gelu", num_attention_heads=2, max_relative_positions=9, pooler_hidden_act="gelu", layer_norm_eps=0.5),
        refused=dict(id2label={"0": "a", "1": "b"}, pos_att_type="c2p")),
    "deberta-plain": dict(
        model=DebertaV2Model,
        config=dict(vocab_size=23, hidden_size=6, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1,
                    max_position_embeddings=32, relative_attention=False, pos_att_type=["c2p"]),
        flips=dict(pos_att_type=[]), refused=dict(relative_attention=True)),
}

WORDS = "the a brown fox jumps over lazy dog how do you bake brimble cake un ##able ##s ##ing ##ed token ##ize ! ? . , ' - 1 2 3".split()


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def template(vocab):
    return processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                         special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])])


def make_tokenizer(kind, size):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [chr(ord("a") + i) for i in range(26)]
    if kind == "wordpiece":
        pieces = special + WORDS + letters + ["##" + c for c in letters]
        vocab = {p: i for i, p in enumerate(dict.fromkeys(pieces))}
        vocab = {p: i for p, i in vocab.items() if i < size}
        tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    elif kind == "bpe":
        merges = [("\u2581", "t"), ("h", "e"), ("\u2581t", "he"), ("o", "w"), ("k", "e"), ("o", "x"), ("f", "ox"), ("d", "o")]
        pieces = special + ["\u2581"] + letters + [a + b for a, b in merges] + list("!?.,'-123")
        vocab = {p: i for i, p in enumerate(pieces)}
        assert len(vocab) <= size
        tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    else:
        pieces = special + ["\u2581"] + ["\u2581" + w for w in WORDS if w[0] != "#"] + letters + list("!?.,'-123")
        pieces = list(dict.fromkeys(pieces))[:size]
        tokenizer = Tokenizer(models.Unigram([(p, 0.0 if i < 4 else -2.0 - 0.05 * i) for i, p in enumerate(pieces)], unk_id=1))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        vocab = tokenizer.get_vocab()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = template(vocab)
    return tokenizer


def random_weights(model, generator):
    for name, p in model.named_parameters():
        with torch.no_grad():
            noise = torch.randn(p.shape, generator=generator)
            if "LayerNorm.weight" in name:
                p.copy_(1 + 0.3 * noise)
            elif p.dim() == 1:
                p.copy_(0.4 * noise)
            elif "embeddings" in name:
                p.copy_(noise)
            else:
                spread = 2.0 if any(k in name for k in ("query", "key")) else 1.5
                p.copy_(spread * noise / math.sqrt(p.shape[1]))


def make_texts(case, config, generator):
    """Pairs only where token types tell them apart; the longest text fills the positions."""
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    texts, types = [], getattr(config, "type_vocab_size", 0)
    for i, n in enumerate([1, 2, 7, config.max_position_embeddings, 13]):
        ids = [draw(0, config.vocab_size) for _ in range(n)]
        second = draw(1, n) if types > 1 and i >= 3 else n
        texts.append(dict(ids=ids, second=second))
    return texts


def run(model, config, text, width=None):
    """Last hidden states and logits of one text, padded to `width`."""
    n = len(text["ids"])
    width = width or n
    ids = torch.zeros(1, width, dtype=torch.long)
    ids[0, :n] = torch.tensor(text["ids"])
    mask = (torch.arange(width) < n).long()[None]
    inputs = dict(input_ids=ids, attention_mask=mask)
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = (torch.arange(width) >= text["second"]).long()[None]
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True)
    return out.hidden_states[-1][0, :n], getattr(out, "logits", None)


def outcomes(model, config, case, texts):
    hidden, embeddings, logits = [], [], []
    for text in texts:
        states, z = run(model, config, text)
        padded, _ = run(model, config, text, config.max_position_embeddings)
        assert (states - padded).norm() <= 1e-12 * states.norm()
        hidden.append(states)
        e = torch.cat([POOLING[mode](states) for mode in case.get("pooling", ["mean"])])
        embeddings.append(torch.nn.functional.normalize(e, dim=0) if case.get("normalise") else e)
        if z is not None:
            logits.append(z[0])
    out = dict(hidden=torch.cat(hidden), embeddings=torch.stack(embeddings))
    if logits:
        out["logits"] = torch.stack(logits)
    return out


def write_modules(directory, case, config):
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")] + ([("Normalize", "2_Normalize")] if case["normalise"] else [])
    write_json(os.path.join(directory, "modules.json"),
               [dict(idx=i, name=str(i), path=p, type="sentence_transformers.models." + t) for i, (t, p) in enumerate(modules)])
    os.makedirs(os.path.join(directory, "1_Pooling"))
    flags = {flag: mode in case["pooling"] for mode, flag in FLAGS.items()}
    if case["pooling"] == ["cls", "mean"]:  # as sentence-transformers 6 writes it
        flags = dict(embedding_dimension=config.hidden_size, pooling_mode=case["pooling"], include_prompt=True)
    else:
        flags["word_embedding_dimension"] = config.hidden_size
    write_json(os.path.join(directory, "1_Pooling", "config.json"), flags)
    write_json(os.path.join(directory, "sentence_bert_config.json"), dict(max_seq_length=20, do_lower_case=False))


def make(name, case, root):
    generator = torch.Generator().manual_seed(sorted(CASES).index(name) + 11)
    directory = os.path.join(root, name)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    family = BertConfig if "Bert" in case["model"].__name__ and "Deberta" not in case["model"].__name__ else DebertaV2Config
    config = family(**case["config"])
    model = case["model"](config).eval()
    random_weights(model, generator)
    state = {n: p.detach().clone() for n, p in model.named_parameters()}
    save_file(state, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
    config.dtype, config.architectures = torch.float32, [case["model"].__name__]
    config.save_pretrained(directory)
    if "pooling" in case:
        write_modules(directory, case, config)

    model = model.double()
    texts = make_texts(case, config, generator)
    out = outcomes(model, config, case, texts)
    kind = "logits" if "logits" in out else "embeddings"
    flips = []
    for key, value in case["flips"].items():
        other = family(**{**case["config"], key.strip(): value})
        flipped = case["model"](other).double().eval()
        flipped.load_state_dict(model.state_dict())
        result = outcomes(flipped, other, case, texts)[kind]
        moved = ((result - out[kind]).norm() / out[kind].norm()).item()
        assert moved > 1e-2, (name, key, moved)
        out[f"flip.{len(flips)}"] = result
        flips.append(dict(key=key.strip(), value=value))
    document = dict(texts=texts, flips=flips, refused=[dict(key=k, value=v) for k, v in case["refused"].items()])
    if "tokenizer" in case:
        tokenizer = make_tokenizer(case["tokenizer"], config.vocab_size)
        tokenizer.save(os.path.join(directory, "tokenizer.json"))
        pairs = [("The brown fox jumps over a lazy dog.", None), ("how do you bake a brimble cake?", "unable tokens, tokenized!"),
                 ("", None), ("dog " * 30, "fox"), ("cake", "fox jumps " * 25)]
        limit = 20 if "pooling" in case else config.max_position_embeddings
        tokenizer.enable_truncation(limit, strategy="longest_first")
        document["written"] = [dict(text=a, pair=b, ids=e.ids, second=e.type_ids.index(1) if 1 in e.type_ids else len(e.ids))
                               for a, b in pairs for e in [tokenizer.encode(a, b) if b else tokenizer.encode(a)]]
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(directory, "expected.safetensors"))
    with open(os.path.join(directory, "case.json"), "w") as f:
        json.dump(document, f, separators=(",", ":"))
        f.write("\n")
    print(name, {k: tuple(v.shape) for k, v in out.items() if "flip" not in k}, len(flips), "flips")


def write_buckets(root):
    rows = []
    for buckets, most in ((256, 512), (8, 48), (7, 30), (32, 128), (2, 12), (320, 1024)):
        distance = torch.arange(0, most + 8)
        bucket = make_log_bucket_position(distance, buckets, most).long()
        assert torch.equal(make_log_bucket_position(-distance, buckets, most).long(), -bucket)
        rows.append(dict(buckets=buckets, max_relative=most, bucket=bucket.tolist()))
    with open(os.path.join(root, "buckets.json"), "w") as f:
        json.dump(rows, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for case_name, chosen in CASES.items():
        make(case_name, chosen, sys.argv[1])
    write_buckets(sys.argv[1])
