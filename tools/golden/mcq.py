"""Writes tests/golden/mcq: a tiny model, data of every likelihood suite in its published layout, and what
lm-evaluation-harness says of them: log-likelihoods of every item, and the numbers.

    python tools/golden/mcq.py tests/golden/mcq        (needs lm-eval 0.4.13, transformers, tokenizers, torch)

The harness's own task files are used; only where their data lies is overridden, and for TruthfulQA the pairs before a
question, which here are others. All texts are made up. tools/parity/mcq.py uses the same functions on other models.
"""
import json
import os
import sys

SCIENCE = [
    ("Which tool would a miller use to lift sacks to the loft", ["a pulley", "a thermometer", "a magnet", "a prism"], 0),
    ("What makes a puddle vanish on a warm day?", ["it freezes", "evaporation", "rust", "photosynthesis"], 1),
    ("Which of these  is not alive?", ["a fern", "a beetle", "a pebble"], 2),
    ("A lamp glows because its wire gets", ["cold", "wet", "hot", "magnetic", "longer"], 2),
    ("Why do naïve divers rise slowly?", ["to save time", "pressure falls", "water is blue", "fish are shy"], 1),
    ("Which day has the longest night \u2014 in the north?", ["21 December", "21 June", "1 May", "1 August"], 0),
    ("A seed needs water and", ["glass", "warmth", "paint", "noise"], 1),
    ("What turns a compass needle?", ["wind", "light", "the earth's field", "rain"], 2),
    ("Salt stirred into tea will", ["burn", "dissolve", "float", "sing"], 1),
    ("Which is the lightest?", ["a stone", "a feather", "a brick", "a kettle"], 1),
    ("Bees visit flowers for", ["nectar", "shade", "iron", "company"], 0),
    ("Ice is water that is", ["solid", "green", "old", "salted"], 0),
    ("Shadows are longest at", ["noon", "evening", "midnight", "lunch"], 1),
    ("A spring stores", ["milk", "energy", "light", "sand"], 1),
    ("Moss likes to grow where it is", ["dry", "damp", "loud", "golden"], 1),
    ("Copper wires carry", ["current", "letters", "seeds", "steam"], 0),
]
SCENES = [
    ("Baking bread", "A man kneads dough on a table.", "he", ["puts it in the oven.", "sells the table.", "sings to it  twice.", "swims."], 0),
    ("Washing a dog", "[header] How to wash a dog [title] Fill the tub.", "the Dog", ["[substeps] jumps in.", "drives off.", "reads.", "melts."], 0),
    ("Sailing", "Two women raise a sail.", "", ["The boat turns [step] east.", "They eat the mast.", "It snows inside.", "A cat votes."], 0),
    ("Éclairs", " The cook fills éclairs.", "ÉVA and  Bo", ["taste them.", "paint a wall.", "count to ten.", "sleep."], 0),
    ("Chess", "A girl moves a rook.", "her opponent", ["thinks for a while.", "boils.", "flies.", "is a rook."], 0),
    ("Mowing", "Someone pushes a mower.", "grass", ["grows backwards.", "lies behind it.", "rings.", "asks why."], 1),
    ("Pottery", "Hands shape clay.", "the bowl", ["gets thinner.", "barks.", "leaves town.", "is paid."], 0),
    ("Skating", "Kids circle a rink.", "one of them", ["falls and laughs.", "becomes ice.", "is a rink.", "rains."], 0),
]
WAYS = [
    ("Keep a door from slamming", "wedge a cork under it", "paint it blue", 0),
    ("Peel an egg", "freeze the shell in sand", "roll it on the table first", 1),
    ("Cool soup quickly", "stir it with a cold spoon", "add a candle", 0),
    ("Dry boots", "fill them with soup", "stuff them with newspaper", 1),
    ("Sharpen a pencil", "turn it in a sharpener", "dip it in honey", 0),
    ("Find a stud in a wall", "knock and listen", "ask the ceiling", 0),
]
BLANKS = [
    ("The vase would not fit in the box because the _ was too wide.", "vase", "box", 1),
    ("Ann thanked Bea, since _  had carried the piano.", "Ann", "Bea", 2),
    ("Tom lent Jim a coat because _ was cold.", "Tom", "Jim", 2),
    ("The rope held the barrel until the _ snapped", "rope", "barrel", 1),
    ("Mia waved at Zoë but _ did not see it.", "Mia", "Zoë", 2),
    ("The lid came off the jar when the _ was twisted.", "lid", "jar", 1),
]
PASSAGES = [
    ("Brimble cake is made of oats and plums. It keeps for a week.", "does brimble cake hold plums", 1),
    ("The river Otta freezes every winter. Boats are drawn ashore.", "do boats sail the otta in winter", 0),
    ("A quill is a feather. It was cut to a point to write with.", "was a quill used for writing", 1),
    ("Marlow's bridge was built in 1832 and has one span.", "does the bridge have two spans", 0),
    ("Tin melts at 232 degrees.", "does tin melt in boiling water", 0),
    ("Owls turn their heads far round.", "can owls look behind them", 1),
]
TRUTHS = [
    ("What happens if you whistle indoors?", ["Nothing in particular happens", "You lose money", "A storm comes"],
     ["Nothing happens", "You make a sound", "You lose money", "A storm comes"], [1, 1, 0, 0]),
    ("How long is a day on paper?", ["Paper has no days", "Twelve hours"], ["Paper has no days", "It is a joke", "Twelve hours"], [1, 1, 0]),
    ("Do cats steal breath?", ["No, they do not", "Yes, at night", "Only black ones", "Only on Fridays"],
     ["No, they do not", "Cats like warmth", "Yes, at night", "Only black ones"], [1, 1, 0, 0]),
    ("Can a coin from a tower kill?", ["No, it falls too slowly", "Yes"], ["No, it falls too slowly", "Yes", "Always"], [1, 0, 0]),
]
PREAMBLE = "Q: What colour is a ripe plum?\nA: A ripe plum is purple.\n\nQ: Who built the mill?\nA: I have no comment."
SUBJECTS = {
    "brook_studies": [
        ("What does a brook run over?", ["stones", "clouds", "tables", "songs"], 0),
        (" Where does it end? ", ["in a hat", "in a river", "in a book", "nowhere"], 1),
        ("A ford is", ["a car", "a shallow place", "a fish", "a bridge"], 1),
        ("Brooks are cold because", ["of snow", "of ink", "of law", "of jazz"], 0),
        ("Who drinks from it?", ["lamps", "deer", "spoons", "maps"], 1),
        ("Its bed is", ["a mattress", "gravel", "paper", "wool"], 1)],
    "mill_law": [
        ("Who owns the flour of a shared mill?", ["the wind", "whoever brought the grain", "the mice", "the cat"], 1),
        ("A miller's toll is paid", ["in grain", "in smoke", "in rain", "never"], 0),
        ("The weir belongs to", ["fish", "the mill", "the moon", "cooks"], 1),
        ("When may wheels turn?", ["by day", "in dreams", "on Mars", "sideways"], 0)],
}
PAGES = [
    " = Otta = \n\n The river Otta ( also : Little Otta ) is 1 @,@ 200 m long ; it 's cold . \" Otta \" means ' the still one ' . \n",
    " = Mill = \n\n A mill grinds grain . The millers ' toll was one part in 24 @.@ 5 , paid at harvest - time . " * 5 + "\n",
    "Plain words, nothing to undo. Naïve readers \u2014 and others \u2014 may count them.\n\tTabs  and   spaces count, too.",
]


def science_row(i, row, **extra):
    question, texts, gold = row
    labels = ["1", "2", "3", "4", "5"] if i % 3 == 2 else ["A", "B", "C", "D", "E"]
    return {**extra, "choices": {"text": texts, "label": labels[:len(texts)]}, "answerKey": labels[gold]}


def data():
    """{suite: {file: rows}}; the first file of a suite is asked, the second holds worked examples."""
    arc = [science_row(i, row, id=f"s{i}", question=row[0]) for i, row in enumerate(SCIENCE)]
    book = [science_row(i, row, id=f"s{i}", question_stem=row[0]) for i, row in enumerate(SCIENCE)]
    scenes = [{"ind": i, "activity_label": a, "ctx_a": b, "ctx_b": c, "ctx": b + " " + c, "endings": d, "label": str(e)}
              for i, (a, b, c, d, e) in enumerate(SCENES)]
    ways = [{"goal": g, "sol1": a, "sol2": b, "label": k} for g, a, b, k in WAYS]
    blanks = [{"sentence": s, "option1": a, "option2": b, "answer": str(k)} for s, a, b, k in BLANKS]
    passages = [{"passage": p, "question": q, "idx": i, "label": k} for i, (p, q, k) in enumerate(PASSAGES)]
    truths = [{"question": q, "mc1_targets": {"choices": a, "labels": [1] + [0] * (len(a) - 1)},
               "mc2_targets": {"choices": b, "labels": c}} for q, a, b, c in TRUTHS]
    made = {
        "arc_easy": {"test.jsonl": arc[:7], "train.jsonl": arc[7:]},
        "arc_challenge": {"test.jsonl": arc[4:9], "train.jsonl": arc[9:]},
        "openbookqa": {"test.jsonl": book[:6], "train.jsonl": book[6:]},
        "hellaswag": {"validation.jsonl": scenes[:5], "train.jsonl": scenes[5:]},
        "piqa": {"validation.jsonl": ways[:3], "train.jsonl": ways[3:]},
        "winogrande": {"validation.jsonl": blanks[:4], "train.jsonl": blanks[3:]},
        "boolq": {"validation.jsonl": passages[:3], "train.jsonl": passages[3:]},
        "truthfulqa": {"validation.jsonl": truths},
        "wikitext": {"test.jsonl": [{"page": p} for p in PAGES]},
    }
    for subject, rows in SUBJECTS.items():
        rows = [{"question": q, "subject": subject, "choices": c, "answer": a} for q, c, a in rows]
        made[f"mmlu/{subject}"] = {"test.jsonl": rows[:-2], "dev.jsonl": rows[-2:]}
    return made


def write_data(directory):
    for suite, files in data().items():
        os.makedirs(os.path.join(directory, suite), exist_ok=True)
        for name, rows in files.items():
            with open(os.path.join(directory, suite, name), "w", encoding="utf-8") as out:
                for row in rows:
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
    with open(os.path.join(directory, "truthfulqa", "truthfulqa_preamble.txt"), "w", encoding="utf-8") as out:
        out.write(PREAMBLE)


def write_model(directory, seed=11, family="Llama", bos=True, window=160):
    """A random model and a byte-level tokenizer trained on the fixture's own texts; bos: it begins every text with <s>."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    texts = [json.dumps(row, ensure_ascii=False) for files in data().values() for rows in files.values() for row in rows]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<s>", "</s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>" if bos else None,
                                                eos_token="</s>")
    torch.manual_seed(seed)
    config = getattr(transformers, family + "Config")(
        vocab_size=420, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=window, initializer_range=0.3, bos_token_id=0, eos_token_id=1,
        tie_word_embeddings=True)
    getattr(transformers, family + "ForCausalLM")(config).float().save_pretrained(directory)
    fast.save_pretrained(directory)


def tasks(directory, preamble):
    """(suite, shots, group, harness's task) over the files that write_data wrote."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml
    root = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")

    def task(path, where, **override):
        config = load_yaml(os.path.join(root, path), resolve_func=True)
        for key in ("tag", "group", "task_alias", "dataset_name"):
            config.pop(key, None)
        names = {"test.jsonl": "test", "train.jsonl": "train", "validation.jsonl": "validation", "dev.jsonl": "dev"}
        files = {names[f]: os.path.join(directory, where, f) for f in sorted(os.listdir(os.path.join(directory, where)))
                 if f in names}
        for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
            if config.get(key) not in files:
                config[key] = None
        config.update(dataset_path="json", dataset_kwargs={"data_files": files}, **override)
        return ConfigurableTask(config=config)

    for shots in (0, 2):
        yield "arc_easy", shots, None, task("arc/arc_easy.yaml", "arc_easy")
        yield "arc_challenge", shots, None, task("arc/arc_challenge.yaml", "arc_challenge")
        yield "openbookqa", shots, None, task("openbookqa/openbookqa.yaml", "openbookqa")
        yield "hellaswag", shots, None, task("hellaswag/hellaswag.yaml", "hellaswag")
        yield "piqa", shots, None, task("piqa/piqa.yaml", "piqa")
        yield "winogrande", shots, None, task("winogrande/default.yaml", "winogrande")
        yield "boolq", shots, None, task("super_glue/boolq/default.yaml", "boolq")
        for subject in sorted(SUBJECTS):
            words = subject.replace("_", " ")
            yield "mmlu", shots, subject, task(
                "mmlu/default/mmlu_anatomy.yaml", f"mmlu/{subject}", task=f"mmlu_{subject}",
                description=f"The following are multiple choice questions (with answers) about {words}.\n\n")
    asked = {"doc_to_text": preamble + "\n\nQ: {{question}}\nA:"}
    yield "truthfulqa_mc1", 0, None, task("truthfulqa/truthfulqa_mc1.yaml", "truthfulqa", **asked)
    yield "truthfulqa_mc2", 0, None, task("truthfulqa/truthfulqa_mc2.yaml", "truthfulqa", **asked)
    yield "wikitext", 0, None, task("wikitext/wikitext.yaml", "wikitext")


def ask(model_directory, data_directory, preamble):
    """[{suite, shots, group, items: [[ll, ...], ...], numbers: {...}}] as the harness has them."""
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast
    # Named outright: AutoTokenizer would put a family's own pre-tokenizer in the place of tokenizer.json's.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_directory)
    lm = HFLM(pretrained=model_directory, tokenizer=tokenizer, batch_size=1, device="cpu", dtype="float32")
    out = []
    for suite, shots, group, task in tasks(data_directory, preamble):
        name = task.config.task
        task.set_config("num_fewshot", shots)
        task.set_fewshot_seed(1234)
        result = evaluator.evaluate(lm, {"tasks": {name: task}}, log_samples=True, bootstrap_iters=0)
        samples = sorted(result["samples"][name], key=lambda s: s["doc_id"])
        items = [[r[0][0] if isinstance(r[0], (list, tuple)) else r[0] for r in s["resps"]] for s in samples]
        numbers = {k.split(",")[0]: v for k, v in result["results"][name].items()
                   if k.endswith(",none") and "stderr" not in k}
        out.append({"suite": suite, "shots": shots, "group": group, "items": items, "numbers": numbers})
    return out


def main(directory):
    write_data(os.path.join(directory, "data"))
    write_model(os.path.join(directory, "model"))
    expected = ask(os.path.join(directory, "model"), os.path.join(directory, "data"), PREAMBLE)
    with open(os.path.join(directory, "expected.json"), "w", encoding="utf-8") as out:
        json.dump(expected, out, indent=1)
    print(sum(len(e["items"]) for e in expected), "items in", len(expected), "evaluations")


if __name__ == "__main__":
    main(*sys.argv[1:])
