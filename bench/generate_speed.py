#!/usr/bin/env python3
"""Batched generation beside transformers' `generate`, interleaved in one run on the machine at hand.

    python bench/generate_speed.py BUILD [--prompts 300] [--length 32] [--new 128] [--rounds 3] ...

Both sides take the same random weights (SmolLM's 135M shape, or --config), prompts of random tokens of one length, greedy
choice, and no stop token, so that every answer is exactly --new tokens long. First each side's best way is looked for on
one batch of short answers: transformers over --batches x --dtypes x --caches, Temper over --batches x --weights, and
over --batches with products of 8-bit integers (--precision int8; such answers differ a little, so they have a ratio of
their own). Then all take turns on the whole work; ratios are of the rounds' medians. Temper's process loads its model anew every time;
loading counts for neither side (but is among Temper's processor seconds). Processors that others kept busy are told for
each round; where they do, the ratio of processor seconds says more than that of the clock.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

SHAPE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 576,
         "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
         "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "tie_word_embeddings": True, "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": None}


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--look-new", type=int, default=24, help="new tokens while looking for the best way")
    parser.add_argument("--batches", default="16,32,64,100,150")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--caches", default="dynamic,static")
    parser.add_argument("--weights", default="fp32,bf16")
    parser.add_argument("--json", type=Path, help="write all figures here")
    return parser.parse_args()


def busy_seconds():
    """Processor seconds of all processes, stolen ones included, and of this one and its children."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ticks = sum(fields) - fields[3] - fields[4]
    return ticks / os.sysconf("SC_CLK_TCK"), sum(u.ru_utime + u.ru_stime for u in own)


class Temper:
    def __init__(self, args, folder):
        self.program, self.args, self.models = args.build / "temper", args, {}
        config = folder / "config.json"
        config.write_text(args.config.read_text() if args.config else json.dumps(SHAPE))
        for weights in args.weights.split(",") + ["int8"]:
            if weights == "int8":
                self.models[weights] = self.models[args.weights.split(",")[-1]]
                continue
            self.models[weights] = folder / weights
            subprocess.run([self.program, "init", "--config", config, "--dtype", weights, self.models[weights], "--quiet"],
                           check=True, stdout=subprocess.DEVNULL)

    def run(self, weights, batch, prompts, new, alone=0):
        done = subprocess.run([self.program, "bench", "generate", "--model", self.models[weights], "--batch", str(batch),
                               "--prompts", str(prompts), "--length", str(self.args.length), "--new", str(new),
                               "--alone", str(alone), "--repeats", "1", "--threads", str(self.args.threads), "--quiet",
                               "--precision", "int8" if weights == "int8" else "auto", "--json"], check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)


class Transformers:
    def __init__(self, args, directory):
        import torch
        import transformers
        transformers.logging.set_verbosity_error()
        torch.set_num_threads(args.threads)
        self.torch, self.args, self.directory, self.models = torch, args, directory, {}
        self.auto = transformers.AutoModelForCausalLM
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        torch.manual_seed(1)
        vocab = json.loads((directory / "config.json").read_text())["vocab_size"]
        self.ids = torch.randint(0, vocab, (args.prompts, args.length))

    def model(self, dtype):
        if dtype not in self.models:
            self.models.clear()  # one at a time in memory
            self.models[dtype] = self.auto.from_pretrained(self.directory, dtype=getattr(self.torch, dtype)).eval()
        return self.models[dtype]

    def run(self, dtype, cache, batch, prompts, new):
        model = self.model(dtype)
        extra = {} if cache == "dynamic" else {"cache_implementation": cache}
        with self.torch.inference_mode():
            began = time.monotonic()
            for first in range(0, prompts, batch):
                ids = self.ids[first:min(first + batch, prompts)]
                out = model.generate(ids, attention_mask=self.torch.ones_like(ids), do_sample=False, max_new_tokens=new,
                                     eos_token_id=None, pad_token_id=0, **extra)
                assert out.shape[1] == self.args.length + new
            return time.monotonic() - began


def look(args, temper, peer):
    """Tokens a second on one batch each; returns the best way of both sides."""
    rates = {}
    for dtype in args.dtypes.split(","):
        peer.run(dtype, "dynamic", 2, 2, 4)
        for cache in args.caches.split(","):
            for batch in map(int, args.batches.split(",")):
                batch = min(batch, args.prompts)
                seconds = min(peer.run(dtype, cache, batch, batch, args.look_new) for _ in range(2))
                rates["transformers", dtype, cache, batch] = batch * args.look_new / seconds
                print("  transformers %-8s %-7s batch %3d: %6.1f tokens/s" %
                      (dtype, cache, batch, batch * args.look_new / seconds), flush=True)
    for weights in args.weights.split(",") + ["int8"]:
        for batch in map(int, args.batches.split(",")):
            batch = min(batch, args.prompts)
            seconds = min(temper.run(weights, batch, batch, args.look_new)["batched"]["median"] for _ in range(2))
            rates["temper", weights, batch] = batch * args.look_new / seconds
            print("  temper       %-8s         batch %3d: %6.1f tokens/s" %
                  (weights, batch, batch * args.look_new / seconds), flush=True)
    def fastest(chosen):
        return max((key for key in rates if chosen(key)), key=rates.get)
    return rates, {"transformers": fastest(lambda key: key[0] == "transformers"),
                   "temper": fastest(lambda key: key[0] == "temper" and key[1] != "int8"),
                   "int8": fastest(lambda key: key[0] == "temper" and key[1] == "int8")}


def measured(work):
    before, began = busy_seconds(), time.monotonic()
    result = work()
    after, wall = busy_seconds(), time.monotonic() - began
    own = after[1] - before[1]
    return result, max(0.0, after[0] - before[0] - own) / wall, own


def main():
    args = options()
    with tempfile.TemporaryDirectory() as folder:
        temper = Temper(args, Path(folder))
        peer = Transformers(args, temper.models[args.weights.split(",")[0]])
        print("torch %(torch)s, transformers %(transformers)s" % peer.versions, flush=True)
        rates, best = look(args, temper, peer)
        tokens = args.prompts * args.new
        rounds = []
        for number in range(args.rounds):
            theirs, load, cpu = measured(lambda: peer.run(*best["transformers"][1:], args.prompts, args.new))
            row = {"transformers": {"seconds": theirs, "others": load, "processor_seconds": cpu}}
            print("round %d: transformers %.1f s (others %.1f)" % (number + 1, theirs, load), flush=True)
            for who in ("temper", "int8"):
                ours, load, own = measured(lambda: temper.run(*best[who][1:], args.prompts, args.new))
                lone = temper.run(*best[who][1:], 1, 1, alone=24)
                seconds = ours["batched"]["median"]
                row[who] = {"seconds": seconds, "others": load, "processor_seconds": own, "report": ours,
                            "alone_tokens_per_second": 1 / lone["alone"]["median"],
                            "share_of_read_bound": lone["share_of_read_bound"]}
                print("  %s %.1f s (others %.1f): %.2f times, %.2f times the processor's seconds; alone %.1f tokens/s, "
                      "%.0f%% of the memory-read bound" % (who, seconds, load, theirs / seconds, cpu / own,
                                                           1 / lone["alone"]["median"],
                                                           100 * lone["share_of_read_bound"]), flush=True)
            rounds.append(row)
        middle = {who: statistics.median(r[who]["seconds"] for r in rounds) for who in best}
        for who in best:
            print("%-12s %-24s %6.1f tokens/s: %.2f times transformers" % (
                who, " ".join(map(str, best[who][1:])), tokens / middle[who], middle["transformers"] / middle[who]))
        if args.json:
            args.json.write_text(json.dumps({"versions": peer.versions, "rates": [[*key, rate] for key, rate in
                                                                                 rates.items()], "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
