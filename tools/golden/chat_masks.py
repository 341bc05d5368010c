"""Writes tests/golden/templates/masks.json: ids and trained tokens of conversations in the formats of published chat templates.

The text is what transformers' apply_chat_template gives, the ids and offsets are those of Hugging Face's tokenizers. What is trained
on goes from the end of the generation prompt to the end of the marker that ends the turn; it is found here from renderings of
beginnings of the conversation and from the marker's name, not, as in the library, by exchanging contents. Conversations are those of
constructs.json; the tokenizers and templates of ../shared are named, not copied.

Run with a Python that has transformers:  tools/golden/chat_masks.py [SHARED_DIRECTORY]
"""
import hashlib
import json
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "parity"))
import tokenizers_live as live  # noqa: E402
from templates import CONVERSATIONS, reference  # noqa: E402
from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402

LLAMA3 = ("{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
          "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}")
TAGGED = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>"
          "{% endgeneration %}\n{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}")
TIGHT = "{% for m in messages %}{{ m.role[0] }} {% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"


def llama3(folder):
    tok = live.from_tiktoken(folder / "tokenizer.model")
    tok.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"] + ["<|reserved_special_token_%d|>" % i for i in range(4)] +
                           ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"])
    return PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")


def load(name, folder):
    if name == "llama3":
        return llama3(folder)
    if name == "phi-3-mini":  # as its file says: LlamaTokenizer of transformers 5 makes another pipeline of it
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="<|endoftext|>")
    return AutoTokenizer.from_pretrained(str(folder))


def cases():
    """tokenizer's directory, template's file or text, variables, the marker that ends a turn"""
    yield "qwen2", "qwen2/tokenizer_config.json", {}, "<|im_end|>"
    yield "qwen2", "qwen2.5/tokenizer_config.json", {}, "<|im_end|>"
    yield "qwen2", "qwen3/tokenizer_config.json", {}, "<|im_end|>"
    yield "qwen2", "qwen3/tokenizer_config.json", {"enable_thinking": False}, "<|im_end|>"
    yield "qwen2", TAGGED, {}, None
    yield "phi-3-mini", "phi-3-mini/tokenizer_config.json", {}, "<|end|>"
    yield "phi-3-mini", "chat_templates/mistral-instruct.jinja", {"eos_token": "</s>"}, "</s>"
    yield "phi-3-mini", "chat_templates/llama-2-chat.jinja", {"eos_token": "</s>"}, "</s>"
    yield "phi-3-mini", "chat_templates/vicuna.jinja", {"eos_token": "</s>"}, "</s>"
    yield "phi-3-mini", TIGHT, {}, None
    yield "qwen2", TIGHT, {}, None
    yield "llama3", LLAMA3, {}, "<|eot_id|>"
    yield "gemma", "gemma/tokenizer_config.json", {"bos_token": "<bos>"}, "<end_of_turn>"


def source(shared, template):
    if "{" in template:
        return template
    path = shared / "tokenizers" / template
    return path.read_text() if path.suffix == ".jinja" else json.loads(path.read_text())["chat_template"]


def stretches(render, messages, text, marker, known):
    """A marker that the tokenizer does not know is text that follows. None where this way finds none: no prompt that the text begins with, and a content that the template changes."""
    found = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, turn = render(messages[:i], True), render(messages[:i + 1], False)
        before = found[-1][1] if found else 0
        plain = message["content"] if message["content"] == message["content"].strip() else None
        start = len(prompt) if prompt is not None and text.startswith(prompt) else text.find(plain or "\0", before)
        if start < 0:
            return None
        end = text.index(marker, start) if turn is None or not text.startswith(turn) else turn.rindex(marker)
        found.append((start, end + len(marker) * known))
    return found


def one(tok, template, variables, marker, messages):
    def render(some, ask):
        return reference(template, some, ask, variables).get("text")
    made = reference(template, messages, False, variables)
    if "error" in made:
        return None
    text = made["text"]
    if marker is None:
        spans = [tuple(len(text.encode()[:at].decode()) for at in pair) for pair in made["stretches"]]
    else:
        spans = stretches(render, messages, text, marker, marker in tok.get_vocab())
    if spans is None:
        return None
    encoded = tok(text, add_special_tokens=False, return_offsets_mapping=True)
    pieces = tok.convert_ids_to_tokens(encoded["input_ids"])
    for i, (s, e) in enumerate(spans):  # a marker that takes the blanks behind it has them in its range
        spans[i] = (s, max([e] + [b for piece, (a, b) in zip(pieces, encoded["offset_mapping"]) if piece == marker and a < e < b]))
    trained, split = [], 0
    for t, (a, b) in enumerate(encoded["offset_mapping"]):
        if any((s <= a if a < b else s < a) and b <= e for s, e in spans):
            if trained and trained[-1][1] == t:
                trained[-1][1] = t + 1
            else:
                trained.append([t, t + 1])
        split += any(a < border < b for span in spans for border in span)
    ids = encoded["input_ids"]
    return dict(count=len(ids), sha256=hashlib.sha256(struct.pack("<%di" % len(ids), *ids)).hexdigest(), trained=trained, split=split)


def main():
    shared = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".." / "shared")
    loaded, sets = {}, []
    for name, template, variables, marker in cases():
        folder = shared / "tokenizers" / ("qwen2" if name == "gemma" else name)
        if name not in loaded:
            loaded[name] = load(name, folder)
        tok = loaded[name]
        seen = {**{k: v for k, v in tok.special_tokens_map.items() if isinstance(v, str)}, **variables}
        rows = []
        for key, messages in CONVERSATIONS.items():
            if any(m["role"] == "assistant" for m in messages):
                made = one(tok, source(shared, template), seen, marker, messages)
                if made:
                    rows.append(dict(conversation=key, **made))
        sets.append(dict(tokenizer=folder.name, template=template, variables=variables, rows=rows))
        print("%-12s %-40s %d" % (name, template[:40], len(rows)))
    lines = ",\n".join("{%s,\n\"rows\": [\n%s]}" % (json.dumps({k: v for k, v in s.items() if k != "rows"})[1:-1],
                                                   ",\n".join(json.dumps(row) for row in s["rows"])) for s in sets)
    (ROOT / "tests" / "golden" / "templates" / "masks.json").write_text('{"sets": [\n%s]}\n' % lines)


if __name__ == "__main__":
    main()
