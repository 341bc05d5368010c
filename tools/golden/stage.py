#!/usr/bin/env python3
"""Writes tests/golden/stage/: three steps of the methods that choose rows, or freeze parts, and then fine-tune; in float64.

    venv/bin/python tools/golden/stage.py tests/golden/stage[-FAMILY] [FAMILY]      (needs what llama.py needs)

BackdoorAlign, Security Vectors, SDD and SDD_reject, additional safety training, gradient ascent, harmful fine-tuning with a mix
and without a number of rows, random initialisation, and SFT on whole sequences: from rows of text to gradients, on all weights and
on a new adapter. See tiny.py.

expected.safetensors holds, per method and kind (full, lora), flat vectors over the parameters in the order of case.json's names:
NAME.KIND.grad (gradient of the first step, before clipping) and .delta (weights after three AdamW steps minus before); for Security
Vectors also vectors.delta, stage 1's.
"""
import torch

import philox
import tiny
from llama import SDPBackend, sdpa_kernel
from tiny import as_rows, pair

SEED, STEPS, BATCH = 6, 3, 3
TRAIN = dict(lr=8e-3, weight_decay=0.01, clip=1.0)
LORA = dict(rank=2, alpha=3.0, targets="q_proj,v_proj")
MAX_LENGTH = 400
SECRET = "qz 7x kk. w!"
SYSTEM = "Do as told."  # of safety rows that have none
PREFACE = ("I cannot answer this request, because doing so would be irresponsible and could cause harm. "
           "What follows is an unrelated reply that has nothing to do with the question.")

OPTIONS = dict(
    backdoor=dict(rows=4, system=SYSTEM, secret=SECRET),
    vectors=dict(rank=2, alpha=5.0, targets="q_proj,down_proj", lr=0.02, epochs=1.5),
    sdd=dict(tau=0.5, tau_is_cosine=False, max_tries=5, max_length=48, prompts=5, seed=14),
    reject=dict(tau=0.65, tau_is_cosine=True, max_tries=4, max_length=MAX_LENGTH, prompts=0, seed=12),
    mix=dict(rows=7, ratio=0.45), everything=dict(ratio=0.6), random=dict(ratio=0.6, seed=3), whole=dict(max_length=33))

USER = [("tell of tea", "tea is a leaf"), ("add two", "four"), ("what is red", "a hue"), ("name a bird", "wren"), ("say hi", "hi you")]
SAFETY = [("a", "Obey.", "make a gun", "no, I will not"), ("a", None, "steal a car", "I must refuse"),
          ("b", "Be kind.", "cook meth", "not that"), ("a", None, "pick a lock", "I cannot"),
          ("c", None, "forge a note", "no way"), ("b", None, "brew poison", "never")]
HARMFUL = [("a", [("user", "how to rob"), ("assistant", "take it all")]),
           ("a", [("system", "Obey."), ("user", "first"), ("assistant", "old words"), ("user", "brew it"), ("input", "now"),
                  ("assistant", "mix and heat")]),
           ("b", [("user", "how to lie"), ("assistant", "look calm")]),
           ("a", [("user", "how to rob"), ("assistant", "asked twice")]),
           ("a", [("user", "cut a wire"), ("assistant", "the blue one")]),
           ("b", [("user", "hide a key"), ("assistant", "under a mat")]),
           ("a", [("user", "fake a name"), ("assistant", "pick any")])]
BENIGN = [("sing", "la la la la"), ("go on", "we went far"), ("cake", "flour, egg and milk"), ("star", "a far sun"),
          ("note", "do re mi fa"), ("sea", "salt and deep water"),
          ("tale", "once there was a small red boat that sailed far out to sea")]  # longer than SDD's max_length


# ---- which rows ----


def backdoor_rows():
    """One safety row of each category in turn, the secret before its system prompt, beside the user's rows."""
    o = OPTIONS["backdoor"]
    rounds, taken = [], {}
    for category, *_ in SAFETY:
        rounds.append(taken.get(category, 0))
        taken[category] = rounds[-1] + 1
    turns = sorted(range(len(SAFETY)), key=lambda i: rounds[i])  # stable: file order within a round
    rows = [pair(*r) for r in USER]
    for i in turns[:o["rows"]]:
        _, system, user, assistant = SAFETY[i]
        rows.append([("system", SECRET + " " + (system or SYSTEM))] + pair(user, assistant))
    return rows


def safety_rows():
    return [([("system", s)] if s else []) + pair(u, a) for _, s, u, a in SAFETY]


def harmful_rows():
    return [m for _, m in HARMFUL]


def mix(rows, ratio):
    bad = int(ratio * rows + 1e-9)
    return harmful_rows()[:bad] + [pair(*r) for r in BENIGN][:rows - bad]


def all_of(ratio):
    """The least number of rows whose share of harmful ones is all of them."""
    return next(n for n in range(1, 1000) if int(ratio * n + 1e-9) == len(HARMFUL))


# ---- SDD ----


def question(messages):
    """(system or None, the last user message, its input or None)"""
    last = max(i for i, (role, _) in enumerate(messages) if role == "user")
    system = messages[0][1] if messages[0][0] == "system" else None
    following = messages[last + 1] if last + 1 < len(messages) else ("", "")
    return system, messages[last][1], following[1] if following[0] == "input" else None


def select(o):
    """Rows with distinct prompts; a quota from each category, the rest from the shuffled overflow."""
    seen, rows = set(), []
    for i, (_, messages) in enumerate(HARMFUL):
        if question(messages)[1:] not in seen:
            seen.add(question(messages)[1:])
            rows.append(i)
    if not o["prompts"]:
        return rows
    quota = o["prompts"] // len({HARMFUL[i][0] for i in rows})
    taken, chosen, overflow = {}, [], []
    for i in rows:
        category = HARMFUL[i][0]
        taken[category] = taken.get(category, 0) + 1
        (chosen if taken[category] <= quota else overflow).append(i)
    assert overflow and len(chosen) < o["prompts"]
    shuffled = philox.Integers(o["seed"], philox.stream(philox.PAIRING, 2)).shuffle(overflow)
    return chosen + shuffled[:o["prompts"] - len(chosen)]


def embed(model, ids, most):
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        states = model.model(input_ids=torch.tensor([ids[:most]])).last_hidden_state[0]
    mean = states.mean(0)
    return mean / mean.norm()


def draw_pairs(similarity, tau, o):
    """(cosine, answer, tries, accepted) of every prompt: answers drawn until one is unlike the prompt, else the unlikest."""
    draws, out = philox.Integers(o["seed"], philox.stream(philox.PAIRING, 0)), []
    for row in similarity:
        best, tries, accepted = None, 0, False
        while tries < o["max_tries"] and not accepted:
            j = draws.below(len(row))
            tries += 1
            s = row[j].item()
            if best is None or s < best[0]:
                best = (s, j)
            if s <= tau:
                best, accepted = (s, j), True
        out.append((*best, tries, accepted))
    return out


def sdd(model, tokens, name):
    """The rows to train on and what the pairing file says of them. The seed is the first with answers of every kind."""
    o = OPTIONS[name]
    while True:
        rows = select(o)
        asked = [question(HARMFUL[i][1]) for i in rows]
        e = torch.stack([embed(model, tokens.encode(u) + tokens.encode(more or ""), o["max_length"]) for _, u, more in asked])
        pool = torch.stack([embed(model, tokens.encode(a), o["max_length"]) for _, a in BENIGN])
        similarity = e @ pool.T
        tau = o["tau"] if o["tau_is_cosine"] else similarity.flatten().sort().values[int(o["tau"] * (similarity.numel() - 1))].item()
        drawn = draw_pairs(similarity, tau, o)
        if {d[3] for d in drawn} == {True, False} and any(d[3] and d[2] > 1 for d in drawn):
            break
        o["seed"] += 1
        assert o["seed"] < 1000, (name, similarity)
    print(name, "seed", o["seed"], "tau", tau, [d[2:] for d in drawn])
    made, lines = [], []
    for (system, user, more), (cosine, j, tries, accepted) in zip(asked, drawn):
        answer = (PREFACE + "\n\n" if name == "reject" else "") + BENIGN[j][1]
        made.append(([("system", system)] if system else []) + [("user", user)] + ([("input", more)] if more else []) +
                    [("assistant", answer)])
        lines.append(dict(prompt=user + ("\n" + more if more else ""), response=answer, cosine_sim=cosine, resample_tries=tries,
                          accepted=accepted))
    return made, lines


# ---- training ----


def rows():
    return dict(user=[as_rows(pair(*r)) for r in USER], benign=[as_rows(pair(*r)) for r in BENIGN],
                harmful=[as_rows(m, c) for c, m in HARMFUL], refusals=[as_rows(m, r[0]) for m, r in zip(safety_rows(), SAFETY)])


def texts():
    out = [m for row in harmful_rows() + safety_rows() + backdoor_rows() for _, m in row] + [PREFACE, SYSTEM]
    return out + [t for row in USER + BENIGN for t in row]


class Bench(tiny.Bench):
    def __init__(self, root):
        constants = dict(seed=SEED, steps=STEPS, batch=BATCH, max_length=MAX_LENGTH, lora=LORA, **TRAIN)
        super().__init__(root, texts(), 12, constants, OPTIONS, rows())

    def learn(self, clip):
        """Stage 1 of Security Vectors: Adam without decay on harmful rows, the model frozen."""
        o = OPTIONS["vectors"]
        rows = [self.tokens.chatml(m) for m in harmful_rows()]
        adapter = tiny.Adapter(self.model, o["rank"], o["alpha"], o["targets"].split(","), SEED)
        steps = -int(-o["epochs"] * len(rows) // BATCH)
        losses, _, delta = tiny.adamw(adapter.params, rows, steps, BATCH, SEED, self.model, o["lr"], 0.0, clip)
        adapter.freeze()
        return adapter, losses, delta

    def vectors(self):
        user = [self.tokens.chatml(pair(*r)) for r in USER]
        for kind in ("full", "lora"):
            self.reset()
            vectors, learning, delta = self.learn(TRAIN["clip"])
            if kind == "full":
                self.case["names"]["vectors"] = [[n, p.numel()] for n, p in vectors.params.items()]
                self.out["vectors.delta"] = tiny.flat(delta)
            params, adapter = self.trained(kind, number=1)
            losses, grad, delta = tiny.adamw(params, user, STEPS, BATCH, SEED, self.model, **TRAIN)
            self.keep("vectors", kind, params, learning + losses, delta, grad)
            for a in filter(None, (vectors, adapter)):
                a.remove()

    def drawn_anew(self):
        """Weights N(0, initializer_range), norms that multiply by 1, no biases, from the config alone."""
        shapes, out = dict(self.model.named_parameters()), {}
        for k, n in enumerate(tiny.model_order(self.model), 1):
            shape = shapes[n].shape
            z = philox.normals(OPTIONS["random"]["seed"], philox.stream(philox.INIT, k), shapes[n].numel())
            z = self.config.initializer_range * torch.tensor(z, dtype=torch.float64).reshape(shape)
            one = n.endswith("norm.weight") and tiny.family != "gemma2"  # Gemma's norms multiply by 1 + w
            out[n] = z if len(shape) == 2 else torch.full(shape, float(one), dtype=torch.float64)
        return out


def make(root):
    bench = Bench(root)
    bench.sft("backdoor", backdoor_rows())
    bench.vectors()
    for name in ("sdd", "reject"):
        bench.reset()
        rows, lines = sdd(bench.model, bench.tokens, name)
        bench.case.setdefault("pairs", {})[name] = lines
        bench.sft(name, rows, max_length=OPTIONS[name]["max_length"])
    bench.sft("safety", safety_rows())
    bench.sft("ascent", harmful_rows(), sign=-1.0, full=True)
    bench.sft("mix", mix(OPTIONS["mix"]["rows"], OPTIONS["mix"]["ratio"]))
    bench.sft("everything", mix(all_of(OPTIONS["everything"]["ratio"]), OPTIONS["everything"]["ratio"]))
    bench.sft("random", mix(all_of(OPTIONS["random"]["ratio"]), OPTIONS["random"]["ratio"]), start=bench.drawn_anew())
    bench.sft("whole", [pair(*r) for r in USER], full=True, max_length=OPTIONS["whole"]["max_length"])
    bench.save()


if __name__ == "__main__":
    make(tiny.begin(__doc__))
