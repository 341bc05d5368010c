"""Writes tests/golden/answers/answers.json: hand-made answers, and what the published rules say of them, computed here
by Python's own regular expressions and by Google's rouge_score.

    python tools/golden/answers.py tests/golden/answers        (needs rouge-score)
"""
import json
import os
import re
import sys
from collections import Counter

MARKER = "The final answer is: "

GSM8K = [
    "", " ", "no number at all", "42", "-42", "- 42", "--42", "4 2", "42.", "42.0", ".5", "0.5", "-.5", "00042",
    "1,234", "1,234,567.89", "1, 234", "12,34", "3,", ",3", "1.2.3", "1..2", "1.-2", "5-3", "5 - 3", "5--3", "3-4-5",
    "$18", "18$", "$1,800.50 in all", "20%", "1/2", "3 1/2", "2^10", "1e5", "1E-5", "x=7", "7x", "a1b2c3", "#5",
    "The final answer is: 18", "The final answer is: 18.", "The final answer is: $18", "The final answer is:18",
    "The final answer is 18", "the final answer is: 18", "The final answer is: -3", "The final answer is: - 3",
    "The final answer is: 1,234", "The final answer is: none", "5 and then The final answer is: none",
    "The final answer is: 5 of 7", "7 The final answer is: 5", "The final answer is: 5 The final answer is: 6",
    "The final answer is: The final answer is: 6", "9 The final answer is: x The final answer is: 6",
    "The final answer is: 5\nBut 6 is better", "The final, answer is: 5 or 8", "The, final answer is: 5 or 8",
    "The final answer is:  5", "The final answer is: \n5", "The final answer is: five, that is 5",
    "6 eggs\nThe final answer is: ", "The final answer is: ", "The final answer is: 3.50", "The final answer is: 3.",
    "The final answer is: 3.5.7", "The final answer is: 10-2", "The final answer is: 010", "The final answer is: 0",
    "The final answer is: -0", "The final answer is: 1000000000000", "The final answer is: 123456789012345678",
    "3 + 4 = 7 <<3+4=7>>7", "<<16-3-4=9>>9\nThe final answer is: 9", "#### 18", "18 ####", "It is 18 (eighteen).",
    "Step 1: 5\nStep 2: 6\nSo 11", "1. ten\n2. twelve", "10:30", "2026-11-22", "7\u00d76=42 eggs", "\u22125", "\u20135",
    "half of 9 is 4.5 !", "100 km/h", "3rd", "He has 3 apples, 4 pears, and 12 plums.", "12\t13", "12\n\n\n",
    "9" * 30, "-" + "9" * 20 + ".5", "1" * 420, "0." + "3" * 60, "The answer is: 4 The final answer is: 8",
    "The final answer is: 8### Response: The final answer is: 9", "5### Response:7", "### Response:7",
    "8 \u00a0 ### Response: 1", "The final answer is: 2,5", "The final answer is: ,5",
]
GSM8K_REFERENCES = ["#### 18", "9 * 2 = 18\n#### 18", "#### 1,234", "#### -3", "#### 3.5", "####5", "#### 0", "#### none",
                    "no number"]

SST2 = [
    "positive", "Positive", "POSITIVE", "negative", "Negative", "NEGATIVE", " positive", "positive ", "\npositive\n",
    "positive.", "Positive.", "positive!", "it is positive", "not positive", "positive negative", "negative, positive",
    "", " ", "neutral", "pos", "positively", "unpositive", "posi tive", "positive\n\npositive", "The sentiment is positive.",
    "positive### Response:negative", "### Response:positive", "\u00a0negative\u00a0", "\u3000positive", "negative\u200b",
    "positive\n### Response:\nnegative", "1", "0", "Posit ive", "positive\t",
]
AGNEWS = [
    "World", "world", "WORLD", " World", "World.", "Sports", "sports", "sport", "Sport", "Business", "business",
    "businesses", "Sci/Tech", "sci/tech", "Sci/tech", "sci", "Sci", "Tech", "tech", "Sci / Tech", "science", "sci-fi",
    "World\nSports", "World News", "the world", "Category: Business", "4", "", "Sci/Tech.", "SCI/TECH", "business ",
    "\tSports", "Business### Response:World", "Sports and Business", "worldly", "sciSports", "Politics", "World/Sports",
    "Sci\\/Tech", "world\u00a0",
]
ROUGE = [
    ("the cat sat", "the cat sat"), ("the cat sat", "the cat"), ("the the the", "the cat"), ("the cat", "the the the"),
    ("", "the cat"), ("the cat", ""), ("", ""), ("The Cat", "the cat"), ("the cat.", "the cat"), ("cat", "dog"),
    ("a-b c_d", "a b c d"), ("it's", "it s"), ("it's", "its"), ("don't stop", "dont stop"), ("42 apples", "42 pears"),
    ("3.14", "3 14"), ("na\u00efve plan", "na ve plan"), ("na\u00efve", "na\u00efve"), ("\u00e9clair", "clair"), ("a  b\tc\nd", "a b c d"),
    ("SELECT name FROM t", "SELECT name FROM t"), ("SELECT name FROM t;", "select name from t"),
    ("SELECT COUNT(*) FROM t WHERE x > 3", "SELECT COUNT(x) FROM t WHERE x = 3"), ("a a b b", "a b"), ("a b", "a a b b"),
    ("a a b", "a b b"), ("one two three", "three two one"), ("one", "one two three four five six seven eight nine"),
    ("Ann is late. Bo waits.", "Bo waits, Ann is late"), ("!!!", "???"), ("...", "a"), ("x", "X"), ("\u0130stanbul", "istanbul"),
    ("stra\u00dfe", "strasse"), ("\u4e2d\u6587 words", "words"), ("tab\u00a0bed", "tab bed"), ("ABC123def", "abc123def"),
    ("running runs", "run running"), ("the, the. the!", "the the"), ("a" * 300, "a" * 300), ("word " * 50, "word"),
    ("Hannah needs Betty's number", "Amanda does not have Betty's number"), ("\u212aelvin", "kelvin"), (" lead", "lead "),
    ("He said: \"no\".", "he said no"),
]
COHERENCE = [
    "no no no", "no no no no", "No, no. NO no", "", "yes", "no no yes no no", "no1no2no3no", "na na na na batman",
    "ha ha ha", "ha-ha-ha-ha", "a b a b a b a b", "word\nword\nword\nword", "no no no\u2014no", "1 1 1 1 1", "!!! !!! !!! !!!",
    "the the the cat the", "the THE The tHe", "no no no nope", "x x x y x x x", "stop stop stop stop stop stop",
]
SST2_LABELS = [["negative", "Negative"], ["positive", "Positive"]]
AGNEWS_LABELS = [["World", "world"], ["Sports", "sports"], ["Business", "business"], ["Sci/Tech", "sci"]]


def cut(answer):
    return ("x### Response:" + answer).split("### Response:")[1].strip()


def numbers(text):
    """Value as published, and the number behind the marker alone; None is infinity."""
    text = text.replace(",", "")
    found = re.findall(r"-?[0-9]+\.?[0-9]*", text)
    segments = text.split(MARKER)
    behind = re.findall(r"-?[0-9]+\.?[0-9]*", segments[1]) if len(segments) > 1 else []
    marked = float(behind[0]) if behind else float("inf")
    value = marked if behind else float(found[-1]) if found else float("inf")
    return [None if v == float("inf") else v for v in (value, marked)]


def labels(answer, classes):
    said = cut(answer)
    return [[said in c, said == c[0], any(s in said for s in c)] for c in classes]


def rouge(answer, reference):
    from rouge_score import rouge_scorer
    a, b = answer.split(), reference.split()
    overlap = sum((Counter(a) & Counter(b)).values())
    by_space = 2 * overlap / (len(a) + len(b)) if overlap else 0.0
    google = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=False).score(reference, answer)["rouge1"].fmeasure
    return [google, by_space]


def coherent(answer):
    words = "".join(c if c.isalpha() else " " for c in answer.lower()).split()
    run, before = 0, None
    for word in words:
        run = run + 1 if word == before else 1
        before = word
        if run > 3:
            return False
    return True


def main(directory):
    made = {
        "gsm8k": [{"answer": a, "cut": cut(a), "numbers": numbers(cut(a))} for a in GSM8K],
        "gsm8k_references": [{"answer": a.replace("####", MARKER), "numbers": numbers(a.replace("####", MARKER))}
                             for a in GSM8K_REFERENCES],
        "sst2": [{"answer": a, "labels": labels(a, SST2_LABELS)} for a in SST2],
        "agnews": [{"answer": a, "labels": labels(a, AGNEWS_LABELS)} for a in AGNEWS],
        "rouge": [{"answer": a, "reference": b, "f1": rouge(a, b)} for a, b in ROUGE],
        "coherence": [{"answer": a, "coherent": coherent(a)} for a in COHERENCE],
    }
    with open(os.path.join(directory, "answers.json"), "w", encoding="utf-8") as out:
        json.dump(made, out, indent=0, ensure_ascii=False)
    print(sum(len(rows) for rows in made.values()), "answers")


if __name__ == "__main__":
    main(*sys.argv[1:])
