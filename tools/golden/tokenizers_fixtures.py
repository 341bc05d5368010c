#!/usr/bin/env python3
"""Writes tests/golden/tokenizers/: small tokenizers as `tokenizers` 0.23 saved them, texts, and what it gives for them.

    python tools/golden/tokenizers_fixtures.py tests/golden/tokenizers

models.json holds the trained models by name. cases-*.json hold tokenizers without their model, which they name, and for
each text [text, ids, offsets in bytes, decoded text, the same without special tokens]. Training is not reproducible in
every detail (hash maps), so a models.json that is there stays and new cases go to the end; without it everything changes.
"""
import json
import sys
from pathlib import Path

import tokenizers_variants as variants

GROUPS = 4


def rows_of(tok, seed):
    texts = variants.random_texts(5, seed, longest=22, old=True) + [variants.CORPUS[seed % 12], ""]
    for text in texts:
        want = variants.expected(tok, text, True)
        yield [text, want["ids"], [place for pair in want["offsets"] for place in pair], want["text"], want["plain"]]


def main():
    out = Path(sys.argv[1])
    stored = out / "models.json"
    found = json.loads(stored.read_text()) if stored.exists() else variants.train_models()
    charsmap = variants.character_map(variants.RULES)
    groups = [[] for _ in range(GROUPS)]
    for index, (name, model, tok) in enumerate(variants.variants(found, charsmap)):
        parts = json.loads(tok.to_str())
        parts["model"] = model
        groups[index % GROUPS].append({"name": name, "tokenizer": parts, "texts": list(rows_of(tok, 1000 + index))})
    out.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n")
    for index, group in enumerate(groups):
        lines = ",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in group)
        (out / ("cases-%d.json" % index)).write_text("[\n%s\n]\n" % lines)


if __name__ == "__main__":
    main()
