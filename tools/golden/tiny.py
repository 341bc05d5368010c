"""What the generators of methods' fixtures share: a tiny model of a family, its tokenizer of single characters, ChatML, Philox, rows,
adapters, AdamW, sketches.

Everything is float64 (llama.py and families.py make transformers compute so) and written from the method specification, not from
Temper's sources; the streams of random numbers are those that its documentation states.
"""
import json
import math
import os
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

import philox
from llama import loss_of

# A fixture of another family than Llama holds sketches of its vectors. pad_token_id: PyTorch's embedding gives no gradient to that
# row, which here is a character's.
FAMILIES = dict(
    llama=("Llama", dict(attn_implementation="sdpa")),
    qwen2=("Qwen2", dict(attn_implementation="eager", use_sliding_window=True, sliding_window=5, max_window_layers=1)),
    gemma2=("Gemma2", dict(attn_implementation="eager", head_dim=6, query_pre_attn_scalar=5, attn_logit_softcapping=8.0,
                           final_logit_softcapping=4.0, sliding_window=5, pad_token_id=None)))
family = "llama"


def begin(doc):
    """The arguments of a generator: a directory, and a family or none."""
    global family
    if len(sys.argv) not in (2, 3):
        sys.exit(doc)
    family = (sys.argv[2:] or ["llama"])[0]
    if family != "llama":
        import families  # noqa: F401  float64 in every family
    torch.set_num_threads(1)
    return sys.argv[1]


LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
           "mlp.down_proj"]


def order(seed, count, first, n):
    """Rows first .. first + n of the endless stream: one shuffle per epoch."""
    epochs = {}
    for i in range(first, first + n):
        epoch = i // count
        if epoch not in epochs:
            epochs[epoch] = philox.Integers(seed, philox.stream(philox.SHUFFLE, epoch)).shuffle(range(count))
        yield epochs[epoch][i % count]


# ---- tokens ----


class Characters:
    """One token per character, and ChatML's markers."""

    def __init__(self, texts):
        characters = sorted(set("".join(texts) + "system user assistant\n"))
        assert all(c == "\n" or " " <= c <= "~" for c in characters)
        self.id = {c: i for i, c in enumerate(characters)}
        self.end, self.start = len(characters), len(characters) + 1
        self.size = self.start + 1

    def encode(self, text):
        return [self.id[c] for c in text]

    def chatml(self, messages, ask=False, max_length=10**9, full=False):
        ids, labels = [], []
        for role, content in join_inputs(messages):
            answer = role == "assistant"
            head = [self.start] + self.encode(role + "\n" + ("" if answer else content))
            body = self.encode(content) + [self.end] if answer else []
            tail = ([] if answer else [self.end]) + self.encode("\n")
            ids += head + body + tail
            labels += [-100] * len(head) + body + [-100] * len(tail)
        if ask:
            ids += [self.start] + self.encode("assistant\n")
        if full:
            labels = list(ids)
        return dict(ids=ids[:max_length], labels=labels[:max_length])

    def save(self, directory):
        """A byte-level BPE without merges."""
        stand_in = {" ": "\u0120", "\n": "\u010a"}
        added = [dict(id=i, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
                 for i, text in ((self.end, "<|im_end|>"), (self.start, "<|im_start|>"))]
        level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
        model = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                     fuse_unk=False, byte_fallback=False, vocab={stand_in.get(c, c): i for c, i in self.id.items()}, merges=[])
        write_json(os.path.join(directory, "tokenizer.json"),
                   dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None, pre_tokenizer=level,
                        post_processor=None, decoder=level, model=model))
        write_json(os.path.join(directory, "tokenizer_config.json"), dict(eos_token="<|im_end|>", pad_token="<|im_end|>"))


def join_inputs(messages):
    """An Alpaca input follows its instruction after a line break."""
    out = []
    for role, content in messages:
        if role == "input":
            out[-1] = (out[-1][0], out[-1][1] + "\n" + content)
        else:
            out.append((role, content))
    return out


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, separators=(",", ":"))
        f.write("\n")


# ---- model ----


def make_config(vocab, **more):
    stem, settings = FAMILIES[family]
    base = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                vocab_size=vocab, max_position_embeddings=512, tie_word_embeddings=True, rms_norm_eps=1e-5, bos_token_id=None,
                eos_token_id=None, initializer_range=0.3)
    base.update(settings)
    base.update(more)
    return getattr(transformers, stem + "Config")(**base)


def build(config):
    return getattr(transformers, FAMILIES[family][0] + "ForCausalLM")(config)


def doubled(model):
    """In float64, and so what Gemma multiplies its embeddings by, which is in no file."""
    model = model.double()
    if family == "gemma2":
        model.model.embed_tokens.embed_scale = torch.tensor(model.config.hidden_size**0.5, dtype=torch.float64)
    return model


def make_model(config, generator, sharp=1.0):
    """Norms multiply by about one, biases are about zero; `sharp`: of queries and keys."""
    model = build(config)
    for name, p in model.named_parameters():
        with torch.no_grad():
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("norm.weight"):
                p.copy_((0 if family == "gemma2" else 1) + 0.2 * noise)
            elif p.dim() == 1:
                p.copy_(0.1 * noise)
            else:
                p.copy_((sharp if "q_proj" in name or "k_proj" in name else 1.0) * noise / math.sqrt(p.shape[1]))
    return model


def save_model(directory, config, tensors):
    os.makedirs(directory, exist_ok=True)
    save_file({n: t.float().contiguous() for n, t in tensors.items()}, os.path.join(directory, "model.safetensors"),
              metadata={"format": "pt"})
    config.dtype, config.architectures = torch.float32, [FAMILIES[family][0] + "ForCausalLM"]
    config.save_pretrained(directory)


def model_order(model):
    """Names of all parameters as Temper counts them: a block's first norm, its attention, what stands between that and the MLP, the
    MLP, its last norm; weight before bias."""
    modules = ["model.embed_tokens"]
    for i in range(model.config.num_hidden_layers):
        at = f"model.layers.{i}."
        between = ["pre_feedforward_layernorm"] if family == "gemma2" else []
        last = ["post_feedforward_layernorm"] if family == "gemma2" else []
        modules += [at + m for m in ["input_layernorm"] + LINEARS[:4] + ["post_attention_layernorm"] + between + LINEARS[4:] + last]
    names = [f"{m}.{kind}" for m in modules + ["model.norm", "lm_head"] for kind in ("weight", "bias")]
    return [n for n in names if n in dict(model.named_parameters())]


class Adapter:
    """y += (alpha / rank) B A x on chosen linears, by hooks; A uniform, B zero unless `values` are given."""

    def __init__(self, model, rank, alpha, targets, seed, number=0, values=None):
        self.params, self.hooks, self.scale = {}, [], alpha / rank
        layers = model.config.num_hidden_layers
        for i in range(layers):
            for k, linear in enumerate(LINEARS):
                if linear.split(".")[1] not in targets:
                    continue
                path = f"model.layers.{i}.{linear}"
                module = model.get_submodule(path)
                out, wide = module.weight.shape
                u = philox.uniforms(seed, philox.stream(philox.LORA, (number * layers + i) * 7 + k), rank * wide)
                a = torch.tensor([2 * x - 1 for x in u], dtype=torch.float64).reshape(rank, wide) / math.sqrt(wide)
                b = torch.zeros(out, rank, dtype=torch.float64)
                if values is not None:
                    a, b = values(rank, wide), values(out, rank)
                a.requires_grad_()
                b.requires_grad_()
                self.params[f"{path}.lora_A.0.weight"], self.params[f"{path}.lora_B.0.weight"] = a, b
                hook = lambda m, inputs, output, a=a, b=b: output + self.scale * (inputs[0] @ a.T) @ b.T
                self.hooks.append(module.register_forward_hook(hook))

    def remove(self):
        for h in self.hooks:
            h.remove()

    def freeze(self):
        for p in self.params.values():
            p.requires_grad_(False)


# ---- training ----


def adamw(params, rows, steps, batch, seed, model, lr, weight_decay, clip, sign=1.0):
    """Losses, the first gradient before clipping, the change of the parameters; norms and biases are not decayed."""
    names, tensors = list(params), list(params.values())
    start = [p.detach().clone() for p in tensors]
    m, v = [torch.zeros_like(p) for p in tensors], [torch.zeros_like(p) for p in tensors]
    losses, first = [], None
    for t in range(1, steps + 1):
        loss, _ = loss_of(model, [rows[r] for r in order(seed, len(rows), (t - 1) * batch, batch)])
        g = torch.autograd.grad(sign * loss, tensors)
        losses.append(sign * loss.item())
        first = first or [x.clone() for x in g]
        scale = min(1.0, clip / (norm(g).item() + 1e-6)) if clip else 1.0
        with torch.no_grad():
            for i, p in enumerate(tensors):
                m[i] = 0.9 * m[i] + 0.1 * scale * g[i]
                v[i] = 0.999 * v[i] + 0.001 * (scale * g[i])**2
                if p.dim() >= 2:
                    p -= lr * weight_decay * p
                p -= lr * (m[i] / (1 - 0.9**t)) / ((v[i] / (1 - 0.999**t)).sqrt() + 1e-8)
    return losses, dict(zip(names, first)), {n: (p - s).detach() for n, p, s in zip(names, tensors, start)}


def norm(tensors):
    return torch.sqrt(sum((t * t).sum() for t in tensors))


SKETCH = 4


def sketch(t):
    """Norm of a tensor and its products with SKETCH vectors of signs, which are bits 0 .. SKETCH - 1 of splitmix64."""
    x = t.detach().reshape(-1)
    with np.errstate(over="ignore"):
        z = np.arange(1, len(x) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    signs = [torch.from_numpy(1.0 - 2.0 * ((z >> np.uint64(k)) & np.uint64(1)).astype(np.float64)) for k in range(SKETCH)]
    return torch.stack([x.norm()] + [s @ x for s in signs])


def flat(tensors):
    """Tensors end to end, or a sketch of each."""
    tensors = tensors.values() if isinstance(tensors, dict) else tensors
    return torch.cat([t.detach().reshape(-1) if family == "llama" else sketch(t) for t in tensors]).contiguous()


def sketched():
    """For case.json."""
    return {} if family == "llama" else dict(sketch=SKETCH)


class Bench:
    """A fixture: a tiny model with the tokenizer of its texts, case.json, and what three steps of methods do to the model."""

    def __init__(self, root, texts, draw, constants, options, rows):
        generator = torch.Generator().manual_seed(draw)
        os.makedirs(root, exist_ok=True)
        self.root, self.options, self.tokens = root, options, Characters(texts)
        self.config = make_config(self.tokens.size)
        model = make_model(self.config, generator)
        self.start = {n: p.detach().double() for n, p in model.named_parameters()}
        save_model(root, self.config, self.start)
        self.tokens.save(root)
        self.model = doubled(model)
        self.seed, self.steps, self.batch = constants["seed"], constants["steps"], constants["batch"]
        self.lora, self.max_length = constants["lora"], constants["max_length"]
        self.train = {k: constants[k] for k in ("lr", "weight_decay", "clip")}
        self.case = dict(seed=self.seed, steps=self.steps, batch=self.batch, max_length=self.max_length, lora=self.lora,
                         options=options, losses={}, names={}, rows=rows, **sketched(), **self.train)
        self.out = {}

    def reset(self, tensors=None):
        with torch.no_grad():
            for n, p in self.model.named_parameters():
                p.copy_((tensors or self.start)[n])

    def trained(self, kind, number=0):
        if kind == "full":
            return dict(self.model.named_parameters()), None
        adapter = Adapter(self.model, self.lora["rank"], self.lora["alpha"], self.lora["targets"].split(","), self.seed, number)
        return adapter.params, adapter

    def keep(self, name, kind, params, losses, delta, grad):
        self.case["names"][kind] = [[n, p.numel()] for n, p in params.items()]
        self.case["losses"][f"{name}.{kind}"] = losses
        self.out[f"{name}.{kind}.delta"], self.out[f"{name}.{kind}.grad"] = flat(delta), flat(grad)

    def sft(self, name, rows, sign=1.0, full=False, max_length=None, start=None):
        encoded = [self.tokens.chatml(m, max_length=max_length or self.max_length, full=full) for m in rows]
        assert len(encoded) > self.batch
        for kind in ("full", "lora"):
            self.reset(start)
            params, adapter = self.trained(kind)
            losses, grad, delta = adamw(params, encoded, self.steps, self.batch, self.seed, self.model, sign=sign, **self.train)
            self.keep(name, kind, params, losses, delta, grad)
            if adapter:
                adapter.remove()

    def save(self):
        save_file(self.out, os.path.join(self.root, "expected.safetensors"))
        write_json(os.path.join(self.root, "case.json"), self.case)


def as_rows(messages, category=None):
    return dict(messages=[dict(role=r, content=c) for r, c in messages], category=category)


def pair(user, assistant):
    return [("user", user), ("assistant", assistant)]
