#!/usr/bin/env python3
"""Training steps beside torch + transformers (+ PEFT), interleaved in one run on the machine at hand.

    python bench/train_speed.py BUILD [--batch 4] [--length 512] [--rounds 3] [--lora-rank 0] ...

Both sides train the same shape (SmolLM's 135M, or --config) from random weights: rows of exactly --length tokens, all but
the first 16 targets, AdamW, gradients clipped to norm 1. First torch's ways are tried with one step each: --attention x --ways,
where a way is fp32, autocast (fp32 weights, products in bf16) or bf16 (everything in bf16); then the fastest and
Temper take turns. A step's seconds are the median of a round's. Ratios are of the rounds' medians. Processors that others
kept busy are told for each turn; where they do, the ratio of processor seconds says more than that of the clock.
"""
import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from generate_speed import SHAPE, busy_seconds  # noqa: E402

PROMPT = 16  # tokens of a row that are no targets
TARGETS = ["q_proj", "v_proj"]  # of adapters: what temper bench step trains, and PEFT by itself


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="measured steps of a turn, after one that is not")
    parser.add_argument("--lora-rank", type=int, default=0, help="0: all weights are trained")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--attention", default="sdpa,eager")
    parser.add_argument("--ways", default="fp32,autocast,bf16")
    parser.add_argument("--precision", default="auto", help="Temper's")
    parser.add_argument("--peer", help="(internal) be torch: WAY ATTENTION")
    parser.add_argument("--json", type=Path, help="write all figures here")
    return parser.parse_args()


def peer(args):
    """One turn of torch in a process of its own, so that its memory's peak is its own."""
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    way, attention = args.peer.split()
    config = transformers.LlamaConfig(**json.loads(args.config.read_text()))
    config._attn_implementation = attention
    model = transformers.LlamaForCausalLM(config)
    model = model.to(torch.bfloat16) if way == "bf16" else model
    model.config.use_cache = False
    if args.lora_rank:
        import peft
        model = peft.get_peft_model(model, peft.LoraConfig(r=args.lora_rank, target_modules=TARGETS,
                                                           task_type="CAUSAL_LM"))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-12, fused=True)
    ids = torch.randint(0, config.vocab_size, (args.batch, args.length))
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    seconds, before = [], 0
    for step in range(args.steps + 1):
        if step == 1:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            before = usage.ru_utime + usage.ru_stime
        began = time.monotonic()
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        float(loss)
        if step:
            seconds.append(time.monotonic() - began)
    gc.collect()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"seconds": seconds, "peak_bytes": usage.ru_maxrss * 1024,
                      "processor_seconds": (usage.ru_utime + usage.ru_stime - before) / args.steps,
                      "versions": {"torch": torch.__version__, "transformers": transformers.__version__}}))


def run_peer(args, config, way, attention, steps):
    done = subprocess.run([sys.executable, __file__, args.build, "--config", config, "--batch", str(args.batch),
                           "--length", str(args.length), "--steps", str(steps), "--lora-rank", str(args.lora_rank),
                           "--threads", str(args.threads), "--peer", way + " " + attention],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("torch %s %s failed:\n%s" % (way, attention, done.stderr[-2000:]))
    return json.loads(done.stdout.splitlines()[-1])


def run_temper(args, config, steps):
    """harmful-sft is plain fine-tuning by another name: the bench times it and SFT in turns, and both count."""
    done = subprocess.run([args.build / "temper", "bench", "step", "--config", config, "--methods", "harmful-sft",
                           "--batch", str(args.batch), "--length", str(args.length), "--answer", str(args.length - PROMPT),
                           "--repeats", "1", "--steps", str(steps), "--lora-rank", str(args.lora_rank), "--threads",
                           str(args.threads), "--precision", args.precision, "--quiet", "--json"],
                          check=True, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    row = report["methods"][0]
    if row["failure"]:
        sys.exit("temper: " + row["failure"])
    return {"seconds": row["sft"]["seconds"] + row["step"]["seconds"], "peak_bytes": row["sft_peak_bytes"],
            "multiply_adds": report["forward_multiply_adds"], "precision": report["precision"],
            "instruction_set": report["instruction_set"]}


def turn(work):
    before, began = busy_seconds(), time.monotonic()
    result = work()
    after, wall = busy_seconds(), time.monotonic() - began
    result["others"] = max(0.0, after[0] - before[0] - (after[1] - before[1])) / wall
    result["step"] = statistics.median(result["seconds"])
    return result


def main():
    args = options()
    if args.peer:
        return peer(args)
    tokens = args.batch * args.length
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(args.config.read_text() if args.config else json.dumps(SHAPE))
        ways = [(way, attention) for way in args.ways.split(",") for attention in args.attention.split(",")]
        looks = {}
        for way in ways:
            looks[way] = turn(lambda: run_peer(args, config, *way, steps=1))
            print("  torch %-8s %-5s %6.1f tokens/s, %.2f GiB (others %.1f)" % (
                *way, tokens / looks[way]["step"], looks[way]["peak_bytes"] / 2**30, looks[way]["others"]), flush=True)
        best = min(ways, key=lambda way: looks[way]["step"])
        rounds = []
        for number in range(args.rounds):
            theirs = turn(lambda: run_peer(args, config, *best, steps=args.steps))
            ours = turn(lambda: run_temper(args, config, steps=args.steps))
            rounds.append({"torch": theirs, "temper": ours})
            print("round %d: torch %.2f s (others %.1f), temper %.2f s (others %.1f): %.2f times" % (
                number + 1, theirs["step"], theirs["others"], ours["step"], ours["others"],
                theirs["step"] / ours["step"]), flush=True)
        middle = {who: statistics.median(r[who]["step"] for r in rounds) for who in ("torch", "temper")}
        peak = {who: max(r[who]["peak_bytes"] for r in rounds) for who in middle}
        print("torch %(torch)s, transformers %(transformers)s" % rounds[0]["torch"]["versions"], end="; ")
        print("temper %(precision)s, %(instruction_set)s" % rounds[0]["temper"])
        for who in middle:
            print("%-8s %-16s %7.1f tokens/s %6.2f GiB" % (who, " ".join(best) if who == "torch" else "",
                                                           tokens / middle[who], peak[who] / 2**30))
        print("temper: %.2f times the tokens, %.2f of the memory; forward and backward at %.0f GFLOP/s" % (
            middle["torch"] / middle["temper"], peak["temper"] / peak["torch"],
            6e-9 * rounds[0]["temper"]["multiply_adds"] / middle["temper"]))
        if args.json:
            args.json.write_text(json.dumps({"best": best, "looks": {" ".join(k): v for k, v in looks.items()},
                                             "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
