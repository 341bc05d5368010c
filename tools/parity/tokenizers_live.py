#!/usr/bin/env python3
"""Compares ids, offsets and decoded text with `tokenizers` and `sentencepiece`, live.

    python tools/parity/tokenizers_live.py BUILD [TEXTS]

For the small ones of tools/golden/tokenizers_variants.py, trained here (BPE, Unigram, WordPiece and WordLevel, every component on
and off), over random Unicode, broken UTF-8 and random ids; for the real tokenizers below ../shared over data files as well. Exit
code 77: the Python packages are not there; without the inputs their part is left out.
"""
import base64
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / ".." / "shared"
sys.path.insert(0, str(ROOT / "tools" / "golden"))

try:
    import sentencepiece
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    import tokenizers_variants as variants
except ImportError as missing:
    print(f"SKIP: parity needs Python with tokenizers and sentencepiece ({missing})")
    sys.exit(77)

BOS_EOS, SPECIAL = 1, 2
GPT2 = None
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
         r"\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def ours(build, path, texts, *flags):
    program = Path(build) / "tools" / "tokenizer_batch"
    data = b"".join((text if isinstance(text, bytes) else text.encode()) + b"\0" for text in texts)
    done = subprocess.run([program, path, *map(str, flags)], input=data, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.decode().split("\n") if line]


compared = dict(tokenizers=0, texts=0)


def compare(name, got, want, texts):
    """Counts the texts that differ in a field of `want`; shows the first."""
    wrong = 0
    for text, a, b in zip(texts, got, want):
        fields = [key for key in b if a.get(key) != b[key]]
        if fields and wrong == 0:
            key = fields[0]
            print("%s: %s of %s\n    is     %s\n    not    %s" % (name, key, ascii(text)[:200], ascii(a.get(key, a))[:300],
                                                              ascii(b[key])[:300]))
        wrong += bool(fields)
    wrong += abs(len(got) - len(texts))
    compared["tokenizers"] += 1
    compared["texts"] += len(texts)
    if wrong:
        print("%s: %d of %d texts differ" % (name, wrong, len(texts)), flush=True)
    return wrong


def broken(texts, seed):
    """Bytes that are no UTF-8 in places: cut, turned, or of none of its forms."""
    draw, out = random.Random(seed), []
    for text in texts:
        data = bytearray(text.encode())
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(0, len(data) + 1)
            if data and draw.random() < 0.5:
                del data[at:at + draw.randrange(1, 3)]
            else:
                data[at:at] = draw.choice([b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x91", b"\xed\xa0\x80", b"\xc0\xaf", b"\x80",
                                           b"\xf4\x90\x80\x80", b"\xe0\x80\xaf"])
        out.append(bytes(data))
    return out


def against_tokenizers(build, name, path, tok, texts, flags):
    tok.encode_special_tokens = not flags & SPECIAL
    want = [variants.expected(tok, text, bool(flags & BOS_EOS)) for text in texts]
    return compare("%s, flags %d" % (name, flags), ours(build, path, texts, flags), want, texts)


def against_lossy(build, name, path, tok, texts, flags):
    """`tokenizers` takes text alone: what is no UTF-8 comes to it as U+FFFD, a maximal part each, as Rust and Python have it."""
    tok.encode_special_tokens = not flags & SPECIAL
    want = [{"ids": tok.encode(text.decode(errors="replace"), add_special_tokens=bool(flags & BOS_EOS)).ids} for text in texts]
    return compare("%s, broken UTF-8" % name, ours(build, path, texts, flags), want, texts)


def against_decoder(build, name, path, tok, seed, count):
    """Ids that no text gives: halves of characters, special tokens anywhere."""
    draw, size = random.Random(seed), tok.get_vocab_size()
    rows = [[draw.randrange(size) for _ in range(draw.randrange(1, 12))] for _ in range(count)]
    texts = [" ".join(map(str, row)) for row in rows]
    want = [{"text": tok.decode(row, skip_special_tokens=False), "plain": tok.decode(row)} for row in rows]
    return compare("%s, random ids" % name, ours(build, path, texts, 0, "decode"), want, texts)


def byte_level(vocab, merges, pattern, normalizer=None, whole=False):
    tok = Tokenizer(models.BPE(vocab, merges, ignore_merges=whole))
    if normalizer is not None:
        tok.normalizer = normalizer
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    tok.pre_tokenizer = byte if pattern is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), byte])
    tok.decoder = decoders.ByteLevel()
    return tok


def from_merges(directory, pattern, normalizer=None):
    lines = (directory / "merges.txt").read_text().split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    vocab = json.loads((directory / "vocab.json").read_text())
    tok = byte_level(vocab, merges, pattern, normalizer)
    tok.add_special_tokens(["<|endoftext|>"])
    return tok


def from_tiktoken(path):
    letters = {}
    for byte in range(256):
        printable = 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174
        letters[byte] = chr(byte if printable else 256 + sum(1 for b in range(byte) if not (
            33 <= b <= 126 or 161 <= b <= 172 or b >= 174)))
    ranks = {}
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    merges = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            if token[:cut] in ranks and token[cut:] in ranks:
                merges.append((rank, ranks[token[:cut]], ranks[token[cut:]], token[:cut], token[cut:]))
    spell = lambda token: "".join(letters[byte] for byte in token)
    merges = [(spell(left), spell(right)) for _, _, _, left, right in sorted(merges)]
    return byte_level({spell(token): rank for token, rank in ranks.items()}, merges, LLAMA3, whole=True)


def data_texts(count):
    texts = []
    with open(SHARED / "data" / "t0_tasks.jsonl", encoding="utf-8") as lines:
        for index, line in enumerate(lines):
            if index % 97 == 0 and len(texts) < count:
                row = json.loads(line)
                texts.append((row["prompt"] + " " + row["completion"]).replace("\0", ""))
    return texts


def against_sentencepiece(build, name, path, texts):
    """Text with a U+0000 in it is left out: nothing else is. It takes bytes, so that its own way with broken UTF-8 counts."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    texts = [text.encode() for text in texts] + broken(texts[:300], 3)
    want = [{"ids": model.encode(text)} for text in texts]
    return compare(name + ", sentencepiece", ours(build, path, texts, 0), want, texts)


def real(build, texts):
    folder = SHARED / "tokenizers"
    wrong = 0
    if not folder.is_dir():
        print("SKIP: %s is absent" % folder)
        return 0
    for name in ("phi-2", "phi-3-mini"):
        path = folder / name / "tokenizer.json"
        tok = Tokenizer.from_file(str(path))
        for flags in (0, SPECIAL, SPECIAL | BOS_EOS):
            wrong += against_tokenizers(build, name, path, tok, texts, flags)
        wrong += against_lossy(build, name, path, tok, broken(texts[:300], 1), SPECIAL)
        wrong += against_decoder(build, name, path, tok, 2, 300)
    plain = [text for text in texts if "<|" not in text]
    for name, tok in (("gpt2", from_merges(folder / "gpt2", GPT2)),
                      ("qwen2", from_merges(folder / "qwen2", QWEN2, normalizers.NFC())),
                      ("llama3", from_tiktoken(folder / "llama3" / "tokenizer.model"))):
        wrong += against_tokenizers(build, name, folder / name, tok, plain, 0)
    for name in ("llama2/tokenizer.model", "tok512/tok512.model"):
        wrong += against_sentencepiece(build, name, folder / name, texts)
    return wrong


def trained(build, texts):
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tokenizer.json"
        for name, _, tok in variants.variants(variants.train_models(), variants.character_map()):
            path.write_text(tok.to_str(), encoding="utf-8")
            wrong += against_tokenizers(build, name, path, tok, texts, SPECIAL | BOS_EOS)
            wrong += against_lossy(build, name, path, tok, broken(texts[:60], 1), SPECIAL | BOS_EOS)
            wrong += against_decoder(build, name, path, tok, 2, 60)
    return wrong


def main():
    build = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    texts = variants.random_texts(count, 5, old=True)
    wrong = trained(build, texts[:300] + variants.CORPUS[:12])
    if (SHARED / "data" / "t0_tasks.jsonl").exists():
        texts += data_texts(count // 4)
    wrong += real(build, texts)
    print("tokenizers: %(texts)d texts in %(tokenizers)d comparisons" % compared + (", %d differ" % wrong if wrong else ", none differ"))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
