#!/usr/bin/env python3
"""Likelihood suites of `temper eval` against the installed lm-evaluation-harness, item by item.

    tools/parity/mcq.py BUILD        exits 0 if all agree, 1 if not, 77 where Python lacks the packages

The tasks, their data and the way the harness is asked are those of tools/golden/mcq.py; the models are others: with and
without bos, short and long windows, two families, and stories260K where ../shared has it. 1e-4 per log-likelihood is allowed,
and beyond 100 nats (whole texts; the harness sums in fp32) a millionth of it.
"""
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
import mcq  # noqa: E402

try:
    import lm_eval  # noqa: F401
    import transformers
    from lm_eval.models import huggingface  # noqa: F401
except ImportError as missing:
    print(f"SKIP: parity needs Python with lm-eval, transformers and torch ({missing})")
    sys.exit(77)

BOUND = 1e-4
MODELS = {
    "Llama, bos, long window": dict(seed=1, window=512),
    "Llama, no bos, window of 96": dict(seed=2, bos=False, window=96),
    "Qwen2, no bos": dict(seed=3, family="Qwen2", bos=False, window=256),
}


def temper_items(temper, model, data, suite, shots):
    """[(group, [ll, ...])] of one suite."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([temper, "eval", suite, "--model", model, "--data-dir", data, "--shots", str(shots), "--out", out,
                        "--quiet"], check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(out, suite + ".json"), encoding="utf-8") as f:
            items = json.load(f)["items"]
    return [(i.get("group"), [c["log_likelihood"] for c in i["choices"]] if "choices" in i else [i["log_likelihood"]])
            for i in items]


def compare(temper, model, data, what):
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        expected = mcq.ask(model, data, mcq.PREAMBLE)
    worst, count = 0.0, 0
    for one in expected:
        mine = [lls for group, lls in temper_items(temper, model, data, one["suite"], one["shots"])
                if one["group"] in (None, group)]
        if [len(a) for a in mine] != [len(b) for b in one["items"]]:
            print(f"{what}: {one['suite']}: other items")
            return False
        for a, b in zip(mine, one["items"]):
            worst = max([worst] + [abs(x - y) / max(1, abs(y) / 100) for x, y in zip(a, b)])
            count += len(a)
    print(f"{what}: {count} log-likelihoods, worst difference {worst:.2g}" + ("" if worst <= BOUND else ": FAILED"))
    return worst <= BOUND


def main(build):
    temper, good = os.path.join(build, "temper"), True
    with tempfile.TemporaryDirectory() as root:
        data = os.path.join(root, "data")
        mcq.write_data(data)
        for number, (what, how) in enumerate(MODELS.items()):
            model = os.path.join(root, f"model-{number}")
            mcq.write_model(model, **how)
            good &= compare(temper, model, data, what)
        shared = os.path.join(HERE, "..", "..", "..", "shared", "models", "stories260K")
        if os.path.exists(shared):
            model = os.path.join(root, "stories")
            subprocess.run([os.path.join(build, "tools", "llama2c_to_hf"), os.path.join(shared, "stories260K.bin"),
                            os.path.join(shared, "tok512.bin"), model], check=True, stdout=subprocess.DEVNULL)
            good &= compare(temper, model, data, "stories260K")
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    sys.exit(main(os.path.abspath(sys.argv[1])))
