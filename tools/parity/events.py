#!/usr/bin/env python3
"""Reads event files of `temper results --tensorboard` with TensorBoard's own reader.

    tools/parity/events.py BUILD

Exit code 77: TensorBoard is not installed.
"""
import glob
import json
import os
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    print("SKIP: tensorboard is not installed")
    sys.exit(77)

PLAN = """name: tiny
worlds: [1]
replicates: 1
model: {hidden: 16, layers: 1, ffn: 16}
probes: {split: development, forbidden: 3, withheld: 2, skill: 2, downstream: 2}
train: {batch: 4, max-length: 128, packed: true}
stages:
  base: {method: finetune, data: pretrain, steps: 3, lr: 3e-3}
attacks:
  grid: {harmful: forbidden-attacker, rows: 8, steps: 5, axes: {lr: [1e-4, 1e-3]}}
arms:
  undefended: {from: base, attacks: grid}
"""


def main():
    temper = os.path.abspath(os.path.join(sys.argv[1], "temper"))
    with tempfile.TemporaryDirectory() as top:
        plan, runs, curves = (os.path.join(top, name) for name in ("plan.yaml", "runs", "curves"))
        open(plan, "w").write(PLAN)
        subprocess.run([temper, "run", plan, "--directory", runs, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([temper, "results", "--directory", runs, "--tensorboard", curves], check=True)
        shown = subprocess.run([temper, "results", "--directory", runs, "--show", "steps", "--json"], check=True,
                               capture_output=True, text=True)
        rows = json.loads(shown.stdout)
        files = glob.glob(os.path.join(curves, "**", "events*"), recursive=True)
        assert len(files) == 2, files
        read = 0
        for path in files:
            attack = os.path.basename(os.path.dirname(os.path.dirname(path)))
            events = EventAccumulator(os.path.dirname(path))
            events.Reload()
            want = [row for row in rows if row["attack"] == attack]
            for tag, name in (("0-train/loss", "loss"), ("0-train/lr", "lr")):
                got = events.Scalars(tag)
                assert [e.step for e in got] == [int(row["step"]) for row in want], (attack, tag)
                assert all(abs(e.value - row[name]) <= 1e-6 * abs(row[name]) for e, row in zip(got, want)), (attack, tag)
                read += len(got)
        print(f"events: {read} numbers of {len(files)} files as they were written")


main()
