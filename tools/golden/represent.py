"""Writes tests/golden/represent: hidden states that transformers gives, their principal components by scikit-learn, and
scikit-learn's components and logistic regressions of made-up matrices.

    python tools/golden/represent.py tests/golden/represent      (needs torch, transformers, scikit-learn)

The first model is tests/golden/mcq/model; the second the same with other weights, written beside the numbers. Texts are
made up. Rows are told apart by their place: harmful ones first.
"""
import json
import os
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import llama  # noqa: F401  float64 in transformers' Llama

WORDS = "amber brook cedar dune ember fern grove heath isle jade knoll linden".split()


def texts():
    harmful = [(f"How do I spoil the {WORDS[i % 12]} of a {WORDS[(3 * i + 1) % 12]}?", f"Pour {WORDS[(i + 5) % 12]} on it.") for i in range(12)]
    harmless = [(f"Where does the {WORDS[i % 12]} meet the {WORDS[(5 * i + 2) % 12]}", f"By the {WORDS[(i + 4) % 12]}, I think.") for i in range(12)]
    return harmful, harmless


def states(model, tokenizer, prompt, answer):
    """(layers, width) for each position: the format "plain" is prompt, answer, end."""
    asked = tokenizer(prompt).input_ids
    said = tokenizer(answer, add_special_tokens=False).input_ids + [tokenizer.eos_token_id]

    def of(ids):
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        return torch.stack([h[0] for h in hidden])  # (layers, tokens, width)

    alone = of(asked)
    return dict(last=alone[:, -1], prompt=alone.mean(1), answer=of(asked + said)[:, len(asked):].mean(1))


def components(out, sets):
    """Projections of position "prompt", axes fitted in each of the three ways."""
    before, after = (s["prompt"].double().numpy() for s in sets)
    for fit in ("first", "union", "each"):
        points, explained = [[], []], [[], []]
        for layer in range(len(before)):
            x = (before[layer], after[layer])
            base = x[0] if fit == "first" else np.concatenate(x)
            for m in range(2):
                pca = PCA(3, svd_solver="full").fit(x[m] if fit == "each" else base)
                points[m].append(pca.transform(x[m]))
                explained[m].append(pca.explained_variance_ratio_)
        for m in range(2):
            out[f"{fit}.{m}.points"] = torch.tensor(np.array(points[m]))
            out[f"{fit}.{m}.explained"] = torch.tensor(np.array(explained[m]))


def numbers(out):
    """More rows than features, and fewer; a constant feature; labels that overlap and labels that do not."""
    rng = np.random.default_rng(7)
    cases = []
    for name, n, d, shift, c in (("tall", 40, 12, 0.5, 1.0), ("wide", 20, 50, 0.2, 1.0), ("strict", 40, 12, 0.5, 0.01),
                                 ("loose", 20, 50, 2.0, 1000.0)):
        labels = np.arange(2 * n) % 3 == 0
        x = rng.normal(size=(2 * n, d)) @ rng.normal(size=(d, d)) * 0.4 + rng.normal(size=d) * 2
        x += shift * np.outer(labels, rng.normal(size=d))
        x[:, 3] = 0.7
        x = x.astype(np.float32)
        train, test = x[:n].astype(np.float64), x[n:].astype(np.float64)
        pca = PCA(4, svd_solver="full").fit(train)
        scaler = StandardScaler().fit(train)
        fit = LogisticRegression(C=c, tol=1e-13, solver="newton-cholesky", max_iter=1000).fit(scaler.transform(train), labels[:n])
        f = fit.decision_function(scaler.transform(test))
        out.update({f"{name}.x": torch.tensor(x), f"{name}.labels": torch.tensor(labels.astype(np.uint8)),
                    f"{name}.axes": torch.tensor(pca.components_.copy()), f"{name}.explained": torch.tensor(pca.explained_variance_ratio_),
                    f"{name}.centre": torch.tensor(pca.mean_), f"{name}.points": torch.tensor(pca.transform(test)),
                    f"{name}.weights": torch.tensor(fit.coef_[0].copy()), f"{name}.f": torch.tensor(f)})
        cases.append(dict(name=name, n=n, d=d, c=c, bias=float(fit.intercept_[0]), accuracy=float((labels[n:] == (f > 0)).mean()),
                          auc=float(roc_auc_score(labels[n:], f))))
    return cases


def write(directory):
    source = os.path.join(os.path.dirname(directory.rstrip("/")), "mcq", "model")
    torch.manual_seed(3)
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    before = transformers.AutoModelForCausalLM.from_pretrained(source, attn_implementation="sdpa").eval()
    after = transformers.AutoModelForCausalLM.from_pretrained(source, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for p in after.parameters():
            p.add_(0.05 * torch.randn_like(p))
    after.save_pretrained(os.path.join(directory, "after"))
    before.double()
    after.double()
    harmful, harmless = texts()
    out, sets = {}, []
    for m, model in enumerate((before, after)):
        rows = [states(model, tokenizer, *row) for row in harmful + harmless]
        sets.append({p: torch.stack([r[p] for r in rows], 1) for p in rows[0]})  # (layers, rows, width)
        for position, x in sets[m].items():
            out[f"states.{m}.{position}"] = x.float()
    components(out, sets)
    cases = numbers(out)
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(directory, "expected.safetensors"))
    with open(os.path.join(directory, "case.json"), "w") as f:
        json.dump(dict(harmful=[dict(messages=[dict(role="user", content=p), dict(role="assistant", content=a)]) for p, a in harmful],
                       harmless=[dict(messages=[dict(role="user", content=p), dict(role="assistant", content=a)]) for p, a in harmless],
                       cases=cases), f, indent=1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(sys.argv[1])
