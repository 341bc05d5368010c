#!/usr/bin/env python3
"""Encoding speed beside Hugging Face's `tokenizers`, one thread each, in turn, on a part of t0_tasks.jsonl.

    python bench/tokenizers_speed.py BUILD [MEGABYTES] [ROUNDS]

Both sides load their tokenizer afresh in each round, so word caches start empty; processor time of encoding alone is
counted. `tokenizers` runs encode_batch_fast (no offsets), its fastest way. llama2 is compared as the tokenizer.json that
phi-3 has (the same vocabulary and pipeline). The last column is `temper tokenize --file` as a whole command, which also
starts, loads the tokenizer, reads the file and writes the ids as text: all of its processor time, beside the encoding
alone of `tokenizers`.
"""
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "parity"))
import tokenizers_live as live  # noqa: E402


def texts_of(size):
    texts, total = [], 0
    with open(live.SHARED / "data" / "t0_tasks.jsonl", encoding="utf-8") as lines:
        for line in lines:
            row = live.json.loads(line)
            texts.append((row["prompt"] + " " + row["completion"]).replace("\0", ""))
            total += len(texts[-1].encode())
            if total >= size:
                return texts, total
    return texts, total


def command_seconds(build, path, file):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([Path(build) / "temper", "tokenize", "--model", path, "--file", file], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    build, size, rounds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 4, int(sys.argv[3]) if len(sys.argv) > 3 else 3
    texts, total = texts_of(int(size * 1e6))
    data = b"".join(text.encode() + b"\0" for text in texts)
    folder = live.SHARED / "tokenizers"
    file = tempfile.NamedTemporaryFile(suffix=".txt")
    file.write(data.replace(b"\0", b"\n"))
    file.flush()
    phi3 = folder / "phi-3-mini" / "tokenizer.json"
    makers = {"gpt2": (folder / "gpt2", lambda: live.from_merges(folder / "gpt2", live.GPT2)),
              "qwen2": (folder / "qwen2", lambda: live.from_merges(folder / "qwen2", live.QWEN2, live.normalizers.NFC())),
              "llama3": (folder / "llama3", lambda: live.from_tiktoken(folder / "llama3" / "tokenizer.model")),
              "llama2": (phi3, lambda: live.Tokenizer.from_file(str(phi3)))}
    for name, (path, make) in makers.items():
        best = {}
        saved = make().to_str()
        for _ in range(rounds):
            tok = live.Tokenizer.from_str(saved)
            start = time.process_time()
            tok.encode_batch_fast(texts, add_special_tokens=False)
            best["tokenizers"] = min(best.get("tokenizers", 1e9), time.process_time() - start)
            done = subprocess.run([Path(build) / "tools" / "tokenizer_batch", path, "2", "speed"], input=data,
                                  stdout=subprocess.PIPE, check=True)
            best["temper"] = min(best.get("temper", 1e9), float(done.stdout.split()[2]))
            best["command"] = min(best.get("command", 1e9), command_seconds(build, path, file.name))
        speed = {who: total / seconds / 1e6 for who, seconds in best.items()}
        print("%-8s temper %6.1f MB/s, tokenizers %6.1f MB/s, ratio %.1f; temper tokenize %6.1f MB/s, ratio %.1f" % (
            name, speed["temper"], speed["tokenizers"], speed["temper"] / speed["tokenizers"], speed["command"],
            speed["command"] / speed["tokenizers"]), flush=True)


if __name__ == "__main__":
    main()
