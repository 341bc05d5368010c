#!/usr/bin/env python3
"""How the time of a training step grows: with the batch, with the layers, and with the length of a row.

    python bench/scaling.py BUILD [--rounds 2] [--steps 2] [--config FILE] [--out docs/performance] ...

Drives `temper bench step --methods sft` on SmolLM's 135M shape (or --config, whose layers are changed): all weights, AdamW,
all but the first 16 tokens of a row trained on. Every point is a process of its own; rounds go through all points, so that
a change of the machine's load meets all of them. A point's time is the median of its steps. Writes OUT/scaling.csv, three
plots (gnuplot) and the part of OUT/scaling.md below its mark. Ends with 1 where the time of a step grows faster than the
batch or the layers, or that of a row faster than length^1.2 from the shortest to the longest.
Needs nothing but Python and gnuplot.
"""
import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 576,
         "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
         "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "tie_word_embeddings": True, "initializer_range": 0.02, "torch_dtype": "float32"}
PROMPT = 16  # tokens of a row that are no targets
LIMIT = {"batch": 1.0, "layers": 1.0, "length": 1.2}  # exponents
NOISE = 0.05  # of an exponent, where the machine is never quite still
MARK = "<!-- written by bench/scaling.py -->"


def numbers(text):
    return [int(x) for x in text.split(",")]


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--batch", type=numbers, default=[1, 2, 4, 8], help="rows of --short tokens")
    parser.add_argument("--short", type=int, default=64)
    parser.add_argument("--layers", type=numbers, default=[6, 12, 18, 24, 30], help="at 2 rows of 2 x --short tokens")
    parser.add_argument("--length", type=numbers, default=[256, 512, 1024, 2048], help="of one row")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="measured steps of a point in each round, after one that is not")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "performance")
    return parser.parse_args()


def measure(args, shape, folder, layers, batch, length):
    config = folder / ("%d.json" % layers)
    config.write_text(json.dumps(dict(shape, num_hidden_layers=layers)))
    done = subprocess.run([args.build / "temper", "bench", "step", "--methods", "sft", "--config", config, "--batch", str(batch),
                           "--length", str(length), "--answer", str(length - PROMPT), "--repeats", "1", "--steps",
                           str(args.steps), "--threads", str(args.threads), "--precision", args.precision, "--quiet",
                           "--json"], stdout=subprocess.PIPE, check=True, text=True)
    report = json.loads(done.stdout)
    row = report["methods"][0]
    if row["failure"]:
        sys.exit(row["failure"])
    return {"seconds": row["step"]["seconds"], "foreign": row["foreign_processors"] or 0.0,
            "flops": report["forward_multiply_adds"] * 6, "share": row["share_of_products"], "peak": row["peak_bytes"],
            "how": "%(precision)s, %(instruction_set)s, %(threads)d threads" % report}


def points(args, shape):
    most = shape["num_hidden_layers"]
    for batch in args.batch:
        yield "batch", batch, (most, batch, args.short)
    for layers in args.layers:
        yield "layers", layers, (layers, 2, 2 * args.short)
    for length in args.length:
        yield "length", length, (most, 1, length)


def gather(args, shape):
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for what, size, how in points(args, shape):
                result = measure(args, shape, Path(folder), *how)
                found.setdefault((what, size), []).append(result)
                print("round %d: %-6s %5d: %7.3f s (others %.1f)" % (
                    number + 1, what, size, statistics.median(result["seconds"]), result["foreign"]), flush=True)
    rows = []
    for (what, size), results in found.items():
        seconds = [s for r in results for s in r["seconds"]]
        median = statistics.median(seconds)
        rows.append({"what": what, "size": size, "seconds": median, "least": min(seconds), "most": max(seconds),
                     "gflops": results[0]["flops"] / median / 1e9, "share": statistics.median(r["share"] for r in results),
                     "peak_mib": max(r["peak"] for r in results) / 2**20,
                     "others": max(r["foreign"] for r in results), "how": results[0]["how"]})
    return rows


def exponents(rows):
    """Of each curve from its smallest to its largest size."""
    made = {}
    for what in LIMIT:
        curve = [r for r in rows if r["what"] == what]
        made[what] = math.log(curve[-1]["seconds"] / curve[0]["seconds"]) / math.log(curve[-1]["size"] / curve[0]["size"])
    return made


AXES = {"batch": "rows in a batch", "layers": "layers", "length": "tokens of a row"}


def doublings(curve):
    """Marks of a logarithmic axis, more than its powers of ten."""
    low, high = min(r["least"] for r in curve), max(r["most"] for r in curve)
    return ", ".join("%g" % 2**k for k in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1))


def plot(args, rows, what, exponent):
    curve = [r for r in rows if r["what"] == what]
    first = curve[0]
    script = """
set terminal svg size 620,420 font 'sans,13' background rgb 'white'
set output '%s'
set logscale xy
set xlabel '%s'
set ylabel 'seconds'
set key top left
set grid ls 0 lc rgb '#d9dde3'
set xtics (%s)
set ytics (%s)
set xrange [%g:%g]
$d << END
%s
END
plot %g * (x / %g) ** %g with lines lc rgb '#5b6470' dt 2 title 'size^{%g}', \
  $d using 1:2:3:4 with yerrorbars lc rgb '#0b62a4' pt 7 notitle, \
  $d using 1:2 with lines lc rgb '#0b62a4' title 'a step, measured: size^{%.2f}'
""" % (args.out / ("scaling-%s.svg" % what), AXES[what], ", ".join(str(r["size"]) for r in curve), doublings(curve),
       first["size"] / 1.15, curve[-1]["size"] * 1.15,
       "\n".join("%g %g %g %g" % (r["size"], r["seconds"], r["least"], r["most"]) for r in curve),
       first["seconds"], first["size"], LIMIT[what], LIMIT[what], exponent)
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def page(args, rows, made, taken):
    lines = [MARK, "", "Measured in %.0f s; %s; others kept at most %.1f processors busy during a point." % (
        taken, rows[0]["how"], max(r["others"] for r in rows)), ""]
    for what in LIMIT:
        curve = [r for r in rows if r["what"] == what]
        lines += ["## By %s" % AXES[what], "", "![a step by %s](scaling-%s.svg)" % (AXES[what], what), "",
                  "| %s | s/step | least, most | GFLOP/s | share of the products' rate | peak MiB |" % AXES[what],
                  "|---|---|---|---|---|---|"]
        lines += ["| %d | %.3f | %.3f, %.3f | %.0f | %.0f%% | %.0f |" % (
            r["size"], r["seconds"], r["least"], r["most"], r["gflops"], 100 * r["share"], r["peak_mib"]) for r in curve]
        lines += ["", "From %d to %d the time grows as size^%.2f; at most %.1f was the goal." % (
            curve[0]["size"], curve[-1]["size"], made[what], LIMIT[what]), ""]
    path = args.out / "scaling.md"
    head = path.read_text().split(MARK)[0] if path.exists() else ""
    path.write_text(head + "\n".join(lines).rstrip() + "\n")


def main():
    args = options()
    shape = json.loads(args.config.read_text()) if args.config else SHAPE
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = gather(args, shape)
    made = exponents(rows)
    with open(args.out / "scaling.csv", "w", newline="") as out:
        writer = csv.DictWriter(out, [k for k in rows[0] if k != "how"], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "%.4g" % v if isinstance(v, float) else v for k, v in row.items() if k != "how"})
    for what in LIMIT:
        plot(args, rows, what, made[what])
    page(args, rows, made, time.monotonic() - began)
    for what, exponent in made.items():
        print("%-6s time grows as size^%.2f (goal: at most %.1f)" % (what, exponent, LIMIT[what]))
    sys.exit(any(made[what] > LIMIT[what] + NOISE for what in made))


if __name__ == "__main__":
    main()
