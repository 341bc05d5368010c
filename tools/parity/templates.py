"""Compares the interpreter of chat templates with Jinja2 as transformers sets it up, live.

    tools/parity/templates.py BUILD [SHARED_DIRECTORY] [RANDOM_CASES] [SEED]

First what tools/golden/templates.py stores, then random cases: expressions and templates put together from parts, on random
conversations. What both refuse agrees whatever they say, except raise_exception, whose message counts; what only the interpreter
refuses as unsupported is counted and shown, and is no disagreement, nor is a slice of what has none: of a constant alone Jinja2's
optimiser makes that undefined, where the same slice of a variable is an error. Exit code 77: Jinja2 or transformers is not there; without
the shared directory its templates are left out.
"""
import json
import logging
import os
import random
import subprocess
import sys
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden"))
try:
    import templates as golden
except ImportError as missing:
    print(f"SKIP: parity needs Python with transformers and jinja2 ({missing})")
    sys.exit(77)


class Peer:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "TZ": "UTC"})

    def render(self, template, messages, ask, variables):
        request = dict(template=template, messages=messages, ask=ask, variables=variables, now=golden.NOW)
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Tally:
    def __init__(self, peer):
        self.peer, self.same, self.refused, self.unsupported, self.different = peer, 0, 0, {}, 0

    def check(self, name, template, messages, ask=False, variables=None):
        want = golden.reference(template, messages, ask, variables or {})
        got = self.peer.render(template, messages, ask, variables or {})
        if "error" in want and "error" in got:
            if want["error"] != "raise" or got["message"] == want["message"][:383]:
                self.refused += 1
                return
        elif got.get("status") == "UNSUPPORTED" or "cannot be sliced" in got.get("message", ""):
            self.unsupported[got["message"]] = self.unsupported.get(got["message"], 0) + 1
            return
        elif "text" in want and want["text"] == got.get("text") and want["stretches"] == got["stretches"]:
            self.same += 1
            return
        self.different += 1
        if self.different <= 40:
            print(f"{name}: {template!r}\n  {json.dumps(messages)[:300]} {variables}\n  want {want}\n  got  {got}")


# ---- random cases ----

ATOMS = ["1", "0", "-3", "2.5", "7", "true", "none", "'a'", "'Ab c'", "''", "' x\\n'", "'\u00e9\u00df'", "[]", "[1, 2, 3]", "['b', 'a']", "{}", "{'k': 1, 'j': 'x'}",
         "messages", "messages[0]", "messages[-1].content", "nothing", "bos_token", "(1, 'z')", "range(3)", "tools", "m", "loop.index", "ns.v", "messages[0].role"]
FILTERS = ["trim", "upper", "lower", "title", "capitalize", "length", "string", "int", "float", "list", "first", "last", "join", "join('-')", "reverse", "sort", "unique | list", "tojson", "tojson(indent=1)",
           "default('d')", "default('d', true)", "abs", "replace('a', 'b')", "indent", "items | list", "dictsort", "map('string') | list", "map(attribute='role') | list", "select | list", "select('string') | list",
           "selectattr('role') | list", "selectattr('role', 'eq', 'user') | list", "min", "max", "sum", "batch(2) | list", "round", "e", "wordcount", "center(9)", "truncate(5, true, '')", "groupby('role') | list | length", "urlencode", "reject('odd') | list"]
TESTS = ["defined", "undefined", "none", "string", "number", "mapping", "sequence", "iterable", "odd", "even", "true", "integer", "float", "boolean", "eq 1", "in [1, 'a']", "divisibleby 2", "lower", "upper", "callable", "sameas none", "gt 1"]
ACCESS = [".role", "['content']", "[0]", "[-1]", "[1:]", "[::-1]", "[:2]", ".items() | list", ".strip()", ".split()", ".split('a')", ".upper()", ".get('k')", ".startswith('a')", ".find('b')", ".title()", ".replace('a', '')", ".keys() | list", ".count('a')", ".index('a')", ".rstrip('c')", ".splitlines()", ".nothing", ".rsplit(none, 1)", ".partition(' ')", "[none:none:2]", ".format(1)", ".zfill(4)", ".isalpha()"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or"]


def expression(rng, depth=3):
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(ATOMS)
    sub = expression(rng, depth - 1)
    kind = rng.random()
    if kind < 0.3:
        return f"{sub} {rng.choice(BINARY)} {expression(rng, depth - 1)}"
    if kind < 0.5:
        return f"({sub}) | {rng.choice(FILTERS)}"
    if kind < 0.65:
        return f"({sub}){rng.choice(ACCESS)}"
    if kind < 0.75:
        return f"{sub} is {rng.choice(['', 'not '])}{rng.choice(TESTS)}"
    if kind < 0.82:
        return f"{sub} if {expression(rng, depth - 1)} else {expression(rng, depth - 1)}"
    if kind < 0.88:
        return f"[{sub}, {expression(rng, depth - 1)}]"
    if kind < 0.92:
        return f"not {sub}"
    return f"({sub})"


def tag(rng, body):
    return "{%" + rng.choice(["", "", "-", "+"]) + " " + body + " " + rng.choice(["", "", "-", "+"]) + "%}"


def space(rng):
    return rng.choice(["", "", " ", "\n", "  \n ", "\n\n", "a", " b ", "\tc\n", "\u00a0", "{# note #}", "{#- n -#}\n"])


def statement(rng, depth):
    if depth == 0:
        return space(rng) + rng.choice(["{{ ", "{{- "]) + expression(rng, 2) + rng.choice([" }}", " -}}"]) + space(rng)
    inner = lambda: space(rng) + "".join(statement(rng, depth - 1) for _ in range(rng.randint(1, 2))) + space(rng)  # noqa: E731
    kind = rng.random()
    if kind < 0.25:
        return tag(rng, "for m in " + rng.choice(["messages", "messages[::-1]", "[1, 2]", "'ab'", "messages if m.role == 'user'", expression(rng, 1)])) + inner() + \
            rng.choice(["", tag(rng, "else") + inner(), tag(rng, "if loop.index > 1") + tag(rng, rng.choice(["break", "continue"])) + tag(rng, "endif") + inner()]) + tag(rng, "endfor")
    if kind < 0.45:
        return tag(rng, "if " + expression(rng, 2)) + inner() + rng.choice(["", tag(rng, "else") + inner(), tag(rng, "elif " + expression(rng, 1)) + inner()]) + tag(rng, "endif")
    if kind < 0.6:
        return tag(rng, f"set {rng.choice(['x', 'm', 'nothing', 'ns.v', 'messages'])} = {expression(rng, 2)}") + inner()
    if kind < 0.67:
        return tag(rng, "set x") + inner() + tag(rng, "endset") + "{{ x }}"
    if kind < 0.74:
        return tag(rng, "macro f(m, b=" + expression(rng, 1) + ")") + inner() + tag(rng, "endmacro") + "{{ f(1) }}"
    if kind < 0.8:
        return tag(rng, "filter " + rng.choice(["upper", "trim", "indent"])) + inner() + tag(rng, "endfilter")
    if kind < 0.86:
        return tag(rng, "generation") + inner() + tag(rng, "endgeneration")
    if kind < 0.9:
        return "{% raw %}" + space(rng) + "{{ x }}" + space(rng) + tag(rng, "endraw")
    return inner() + "{{ x }}"


def conversation(rng):
    if rng.random() < 0.5:
        return rng.choice(list(golden.CONVERSATIONS.values()))
    pieces = ["a", "B b", "\n", "  ", "\u00e9", "<|im_end|>", "1", "{{ x }}", "'", '"', "\U0001f98a", "\t", "</think>", ""]
    text = lambda: "".join(rng.choice(pieces) for _ in range(rng.randint(0, 5)))  # noqa: E731
    return golden.chat(*[text() for _ in range(rng.randint(1, 5))], system=text() if rng.random() < 0.4 else None)


def main():
    os.environ["TZ"] = "UTC"
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    shared = sys.argv[2] if len(sys.argv) > 2 else os.path.join(os.path.dirname(__file__), "../../../shared")
    count, seed = int(sys.argv[3]) if len(sys.argv) > 3 else 2000, int(sys.argv[4]) if len(sys.argv) > 4 else 1
    tally = Tally(Peer(os.path.join(sys.argv[1], "tools", "templates_peer")))
    golden.constructs()
    for case in golden.CONSTRUCTS:
        tally.check(case["name"], case["template"], golden.CONVERSATIONS[case["conversation"]], case["ask"], case["variables"])
    rng = random.Random(seed)
    published = list(golden.sources(shared))
    if not published:
        print(f"SKIP: no templates below {shared}")
    for name, template, variables in published:
        for key, messages in golden.CONVERSATIONS.items():
            for ask in (False, True):
                for more in ({}, dict(tools=golden.TOOLS), dict(enable_thinking=False)):
                    tally.check(f"{name} on {key}", template, messages, ask, {**variables, **more})
    for i in range(count):
        variables = {**golden.TOKENS, **(dict(tools=golden.TOOLS) if rng.random() < 0.3 else {})}
        kind = rng.random()
        if kind < 0.5 or (kind >= 0.95 and not published):
            template = "{% set ns = namespace(v=1) %}|{{ " + expression(rng) + " }}|"
        elif kind < 0.95:
            template = "{% set ns = namespace(v=1) %}" + "".join(statement(rng, 2) for _ in range(rng.randint(1, 3)))
        else:
            template = rng.choice(published)[1]
        tally.check(f"random {i}", template, conversation(rng), rng.random() < 0.5, variables)
    print(f"templates: {tally.same} the same, {tally.refused} refused by both, {sum(tally.unsupported.values())} unsupported, {tally.different} different")
    for message, n in sorted(tally.unsupported.items(), key=lambda item: -item[1])[:20]:
        print(f"  {n:5} {message}")
    return 1 if tally.different else 0


if __name__ == "__main__":
    sys.exit(main())
