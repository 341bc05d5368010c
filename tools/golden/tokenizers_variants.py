"""Small tokenizers with every component of tokenizer.json on and off, and texts to try them on.

Used by tokenizers_fixtures.py (which writes the fixtures of tests/golden/test_tokenizers.c) and by
tools/parity/tokenizers_live.py. Needs `tokenizers` 0.23 and, for its maps of characters, `sentencepiece`.
"""
import io
import json
import os
import random
import tempfile
import unicodedata

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The weather is fine today, and the weather was fine on Monday; who can say what it will be like tomorrow?",
    "Don't worry: they're coming, she'll see them at 10:30, and it's 12,345.67 metres to the old bridge.",
    "Ein Käufer möchte größere Äpfel; übermorgen öffnet der Laden früher. Straße, Fuß, Maß!",
    "Café, naïve, résumé, déjà vu: l'été à la plage, où êtes-vous? Ça va très bien, merci.",
    "El niño comió piñas en España mañana por la mañana. ¿Qué hora es? ¡Ya!",
    "Привет, мир! Как дела сегодня? Всё хорошо, спасибо большое.",
    "今日はとても良い天気ですね。東京へ行きます。カタカナとひらがな。",
    "你好，世界！今天天气很好。我们去公园走走。",
    "안녕하세요 세계 오늘 날씨가 좋네요",
    "مرحبا بالعالم كيف حالك اليوم",
    "for (int i = 0; i < n; i++) { total += values[i]; }  // sum",
    "x = {'a': 1, \"b\": [2, 3]}\n\tif x: return None\r\n\n",
] * 4

SPECIAL = ["<unk>", "<s>", "</s>", "<mask>"]


def plain(text):
    return AddedToken(text, special=False, normalized=False)


def train(model, trainer, normalizer=None, pre=None):
    tok = Tokenizer(model)
    if normalizer is not None:
        tok.normalizer = normalizer
    if pre is not None:
        tok.pre_tokenizer = pre
    tok.train_from_iterator(CORPUS, trainer)
    return json.loads(tok.to_str())["model"]


def train_models():
    """Models by name, as they stand in a tokenizer.json."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = pre_tokenizers.Metaspace()
    fallback = ["<0x%02X>" % i for i in range(256)]
    found = {
        "bytes": train(models.BPE(), trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=letters,
                                                         show_progress=False), pre=by_bytes),
        "bytes-part": train(models.BPE(unk_token="<unk>"), trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL,
                                                                               show_progress=False), pre=by_bytes),
        "chars": train(models.BPE(unk_token="<unk>"), trainers.BpeTrainer(
            vocab_size=330, special_tokens=SPECIAL, limit_alphabet=120, show_progress=False), pre=marks),
        "fallback": train(models.BPE(unk_token="<unk>", byte_fallback=True), trainers.BpeTrainer(
            vocab_size=500, special_tokens=SPECIAL + fallback, limit_alphabet=90, show_progress=False), pre=marks),
        "affixes": train(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"),
                         trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, limit_alphabet=80,
                                             continuing_subword_prefix="##", end_of_word_suffix="</w>",
                                             show_progress=False), pre=pre_tokenizers.Whitespace()),
        "suffix": train(models.BPE(end_of_word_suffix="</w>"), trainers.BpeTrainer(
            vocab_size=700, special_tokens=SPECIAL, initial_alphabet=letters, end_of_word_suffix="</w>",
            show_progress=False), pre=by_bytes),
        "unigram": train(models.Unigram(), trainers.UnigramTrainer(
            vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False), pre=marks),
        "wordpiece": train(models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer(
            vocab_size=380, special_tokens=SPECIAL, show_progress=False), pre=pre_tokenizers.BertPreTokenizer()),
        "wordlevel": train(models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(
            vocab_size=90, special_tokens=SPECIAL, show_progress=False), pre=pre_tokenizers.Whitespace()),
    }
    bytes_list = [[piece, -9.0 - i / 64] for i, piece in enumerate(fallback)]
    found["unigram-bytes"] = dict(found["unigram"], byte_fallback=True, vocab=found["unigram"]["vocab"] + bytes_list)
    found["words"] = dict(found["bytes"], ignore_merges=True)
    found["fused"] = dict(found["chars"], fuse_unk=True)
    found["silent"] = dict(found["chars"], unk_token=None)
    found["short-words"] = dict(found["wordpiece"], max_input_chars_per_word=4)
    return found


# A map of characters of our own: one to one, one to many, many to one, nothing, a part of a longer one.
RULES = {"ﬁ": "fi", "①": "1", "½": "1/2", "Å": "A", "Ω": "ohm", "e\u0301": "é", "\u3000": " ", "\u00a0": " ", "\u200b": "",
         "ﷺ": "صلى الله", "ß": "ss", "Straße": "street", "가각": "x", "ça": "sa", "\u2003": "  "}


def field(message, number):
    """The first field of that number, of bytes, in a protobuf message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            at += 1
            value |= (message[at - 1] & 127) << shift
            shift += 7
            if message[at - 1] < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            varint()
            continue
        size = varint() if key & 7 == 2 else 8 if key & 7 == 1 else 4
        if key >> 3 == number and key & 7 == 2:
            return message[at:at + size]
        at += size
    raise KeyError(number)


def character_map(rules=None):
    """As sentencepiece compiles it: of these rules, or its nmt_nfkc (240 kB)."""
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as scratch:
        options = dict(normalization_rule_name="nmt_nfkc")
        if rules:
            options = dict(normalization_rule_tsv=os.path.join(scratch, "rules.tsv"))
            with open(options["normalization_rule_tsv"], "w") as file:
                for old, new in rules.items():
                    file.write("\t".join(" ".join("%X" % ord(c) for c in text) for text in (old, new)) + "\n")
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=300,
                                                 model_type="unigram", hard_vocab_limit=False, minloglevel=2, **options)
    return field(field(model.getvalue(), 3), 2)  # ModelProto.normalizer_spec.precompiled_charsmap


def template(before, after):
    names = {"<s>": 1, "</s>": 2}
    return processors.TemplateProcessing(single=" ".join(before + ["$A"] + after), pair="$A $B",
                                         special_tokens=list(names.items()))


def variants(found, charsmap):
    """(name, model, tokenizer): one component or one combination of published models at a time."""
    N, P, D, S = normalizers, pre_tokenizers, decoders, SPECIAL
    byte_pre, byte_dec = P.ByteLevel(add_prefix_space=False), D.ByteLevel()
    words = P.Whitespace()
    rows = []

    def add(name, model, norm=None, pre=None, post=None, dec=None, added=()):
        rows.append((name, model, norm, pre, post, dec, added))

    # byte-level BPE
    add("gpt2", "bytes", pre=byte_pre, post=processors.ByteLevel(trim_offsets=True), dec=byte_dec)
    add("gpt2-prefix", "bytes", pre=P.ByteLevel(add_prefix_space=True), dec=byte_dec,
        post=processors.ByteLevel(trim_offsets=True, add_prefix_space=True))
    add("roberta", "bytes", pre=P.ByteLevel(add_prefix_space=True), dec=byte_dec,
        post=processors.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=True, add_prefix_space=True),
        added=[AddedToken("<mask>", lstrip=True, special=True)])
    add("roberta-untrimmed", "bytes", pre=byte_pre, dec=byte_dec,
        post=processors.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=False, add_prefix_space=False))
    llama3 = Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
                   r"\s*[\r\n]+|\s+(?!\S)|\s+")
    add("llama3", "words", pre=P.Sequence([P.Split(llama3, "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)]),
        post=processors.Sequence([processors.ByteLevel(trim_offsets=False), template(["<s>"], [])]), dec=byte_dec)
    add("qwen2", "bytes", norm=N.NFC(), pre=P.Sequence([P.Split(llama3, "isolated"),
        P.ByteLevel(add_prefix_space=False, use_regex=False)]), dec=byte_dec, post=processors.ByteLevel(trim_offsets=False))
    add("starcoder", "bytes", pre=P.Sequence([P.Digits(individual_digits=True), byte_pre]), dec=byte_dec)
    add("bytes-part", "bytes-part", pre=byte_pre, dec=byte_dec, post=processors.ByteLevel(trim_offsets=True))
    add("clip", "suffix", norm=N.Sequence([N.NFC(), N.Replace(Regex(r"\s+"), " "), N.Lowercase()]),
        pre=P.Sequence([P.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
                        byte_pre]), dec=D.Sequence([D.ByteLevel(), D.BPEDecoder(suffix="</w>")]))
    add("byte-normalizer", "bytes", norm=N.ByteLevel(), dec=byte_dec)
    add("digits-after-bytes", "bytes", pre=P.Sequence([byte_pre, P.Digits()]), dec=byte_dec)
    # normalizers, each seen through single characters
    for name, norm in {
        "nfc": N.NFC(), "nfd": N.NFD(), "nfkc": N.NFKC(), "nfkd": N.NFKD(), "lowercase": N.Lowercase(), "nmt": N.Nmt(),
        "strip": N.Strip(), "strip-left": N.Strip(left=True, right=False), "accents": N.StripAccents(),
        "nfd-accents": N.Sequence([N.NFD(), N.StripAccents()]), "replace": N.Replace("e", "<e>"),
        "replace-pattern": N.Replace(Regex(r"\s+|(?<=a)"), "_"), "prepend": N.Prepend("▁▁"),
        "bert": N.BertNormalizer(), "bert-cased": N.BertNormalizer(lowercase=False),
        "bert-plain": N.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False),
    }.items():
        add("norm-" + name, "bytes", norm=norm, pre=byte_pre, dec=byte_dec)
    # pre-tokenizers
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            split = P.Split(Regex(r"[aeiou\s]"), behavior, invert=invert)
            add("split-%s%s" % (behavior, "-inverted" if invert else ""), "chars", pre=split)
        add("punctuation-" + behavior, "chars", pre=P.Punctuation(behavior))
    add("split-string", "chars", pre=P.Split("th", "isolated"))
    add("whitespace", "chars", pre=words)
    add("whitespace-split", "fused", pre=P.WhitespaceSplit())
    add("delimiter", "chars", pre=P.CharDelimiterSplit("e"))
    add("digits", "fused", pre=P.Digits())
    add("bert-words", "silent", pre=P.BertPreTokenizer())
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            pre = P.Metaspace(prepend_scheme=scheme, split=split)
            add("metaspace-%s%s" % (scheme, "" if split else "-whole"), "fallback", pre=pre, dec=D.Metaspace(
                prepend_scheme=scheme), added=[plain("weather")])
    add("metaspace-after-strip", "chars", norm=N.Strip(), pre=P.Metaspace(prepend_scheme="first"))
    add("two-metaspaces", "chars", pre=P.Sequence([P.WhitespaceSplit(), P.Metaspace()]), dec=D.Metaspace())
    # models
    llama2 = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])
    add("llama2", "fallback", norm=N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")]), post=template(["<s>"], []), dec=llama2)
    add("affixes", "affixes", pre=words, dec=D.BPEDecoder(suffix="</w>"))
    add("unigram", "unigram", norm=N.NFKC(), pre=P.Metaspace(), post=template([], ["</s>"]), dec=D.Metaspace())
    add("unigram-bytes", "unigram-bytes", pre=P.Metaspace(), dec=D.Sequence([D.ByteFallback(), D.Metaspace()]))
    add("unigram-whole", "unigram")
    add("bert", "wordpiece", norm=N.BertNormalizer(), pre=P.BertPreTokenizer(), dec=D.WordPiece(),
        post=processors.BertProcessing(("</s>", 2), ("<s>", 1)))
    add("bert-short", "short-words", norm=N.BertNormalizer(), pre=P.BertPreTokenizer(), dec=D.WordPiece(cleanup=False))
    add("wordlevel", "wordlevel", norm=N.Lowercase(), pre=words)
    # added tokens
    tokens = [AddedToken("day", single_word=True, normalized=False), AddedToken("<x>", lstrip=True, normalized=False),
              AddedToken("<y>", rstrip=True, normalized=False), AddedToken("WEATHER", normalized=True),
              AddedToken("<both>", lstrip=True, rstrip=True, special=True), AddedToken("  ", normalized=False),
              AddedToken("é", normalized=False)]
    add("added", "bytes", pre=byte_pre, dec=byte_dec, added=tokens, post=processors.ByteLevel(trim_offsets=True))
    add("added-normalized", "unigram", norm=N.Sequence([N.NFKC(), N.Lowercase()]), pre=P.Metaspace(prepend_scheme="first"),
        dec=D.Metaspace(), added=tokens)
    # maps of characters
    mapped = N.Precompiled(charsmap)
    add("precompiled", "unigram", norm=mapped, pre=P.Metaspace(), post=template([], ["</s>"]), dec=D.Metaspace())
    add("precompiled-bytes", "bytes", norm=mapped, pre=byte_pre, dec=byte_dec)
    add("precompiled-after", "bytes", norm=N.Sequence([N.NFD(), N.Lowercase(), mapped]), pre=byte_pre, dec=byte_dec)
    add("t5", "unigram", norm=N.Sequence([mapped, N.Strip(left=False, right=True), N.Replace(Regex(" {2,}"), "▁")]),
        pre=P.Metaspace(), post=template([], ["</s>"]), dec=D.Metaspace())
    add("deberta", "unigram-bytes", norm=N.Sequence([N.Strip(), mapped, N.Replace(Regex(" {2,}"), " ")]),
        pre=P.Sequence([P.WhitespaceSplit(), P.Metaspace()]), post=template(["<s>"], ["</s>"]), dec=D.Metaspace(),
        added=[AddedToken("<mask>", lstrip=True, special=True)])

    for name, model, norm, pre, post, dec, added in rows:
        tok = Tokenizer.from_str(json.dumps({
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": found[model]}))
        if norm is not None:
            tok.normalizer = norm
        if pre is not None:
            tok.pre_tokenizer = pre
        if post is not None:
            tok.post_processor = post
        if dec is not None:
            tok.decoder = dec
        tok.add_special_tokens(S)
        tok.add_tokens(list(added))
        yield name, model, tok


def random_texts(count, seed, longest=40, old=False):
    """Unicode of all kinds, mixed a few kinds at a time. No NUL. `old`: characters drawn by code are of Unicode 3.2,
    whose classes are the same in every library."""
    draw = random.Random(seed)

    def anywhere(low, high):
        code = draw.randrange(low, high)
        unknown = old and unicodedata.ucd_3_2_0.category(chr(code)) in ("Cn", "Co")
        return "x" if 0xD800 <= code < 0xE000 or unknown else chr(code)

    kinds = [
        lambda: chr(draw.randrange(32, 127)),
        lambda: draw.choice(" \t\n\r  \u00a0\u3000\u2003\u200b\u180e\x85"),
        lambda: draw.choice("éàüñçÅßİıſǅﬁ①½Ωﷺ가각힣漢字かなカﾅ"),
        lambda: anywhere(0x300, 0x370),
        lambda: anywhere(0xA0, 0x250),
        lambda: draw.choice(["👍🏽", "👨‍👩‍👧", "🇩🇪", "e\u0301", "a\u0323\u0302", "\u1100\u1161\u11a8", "\u0e33", "▁", "▁▁a", "Ġ", "##a"]),
        lambda: draw.choice(["<s>", "</s>", "<unk>", "<mask>", "<x>", "<y> ", " <both> ", "day", " day ", "weather", "Weather",
                             "don't", " 's", "...", "don’t", "12,345.67", "x²", "<|endoftext|>", "[MASK]", "  "]),
        lambda: anywhere(0x80, 0x3000),
        lambda: anywhere(1, 0x110000),
        lambda: draw.choice(["the", "of", " and", " fine", "Weather", "ing", "tion", "0", "1", "23", "é", " "]),
    ]
    texts = []
    for _ in range(count):
        chosen = [draw.choice(kinds) for _ in range(draw.randrange(1, 4))]
        texts.append("".join(draw.choice(chosen)() for _ in range(draw.randrange(1, longest))))
    return texts


def expected(tok, text, add_special):
    """What a tokenizer gives for a text: ids, offsets in bytes, and the text of the ids, special tokens shown and hidden."""
    encoding = tok.encode(text, add_special_tokens=add_special)
    at = [0]
    for character in text:
        at.append(at[-1] + len(character.encode()))
    return {"ids": encoding.ids, "offsets": [[at[a], at[b]] for a, b in encoding.offsets],
            "text": tok.decode(encoding.ids, skip_special_tokens=False),
            "plain": tok.decode(encoding.ids, skip_special_tokens=True)}
