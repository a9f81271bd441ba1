"""Makes tests/data/splits.json: how the models' own patterns (with their look-aheads) cut texts, by Python's regex module.

    pip install regex
    python splits.py
"""
import json
import pathlib
import random

import regex

CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def cased(suffix, upper=f"[{UPPER}]", lower=f"[{LOWER}]"):
    lead = r"[^\r\n\p{L}\p{N}]?"
    return f"{lead}{upper}*{lower}+{suffix}|{lead}{upper}+{lower}*{suffix}|"


GPT4O = cased(CONTRACTIONS + "?") + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + TAIL
ASCII_MARKS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
DEEPSEEK_V3 = ASCII_MARKS + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + TAIL
CJK = r"[一-龥぀-ゟ゠-ヿ]+"
THOUSANDS = r"\d{1,3}(?=(?:\d{3})*\b)"
NOT_HAN = r"&&[^\p{Han}]]"

RULES = {
    "gpt-2": [GPT2],
    "qwen2": [QWEN2],
    "qwen35": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + TAIL],
    "llama-bpe": [LLAMA3],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", CJK, DEEPSEEK_V3],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "starcoder": [r"\p{N}", GPT2],
    "tekken": [cased("") + r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + TAIL],
    "gpt-4o": [GPT4O],
    "kimi-k2": [
        r"[\p{Han}]+|"
        + cased(CONTRACTIONS + "?", f"[[{UPPER}]{NOT_HAN}", f"[[{LOWER}]{NOT_HAN}")
        + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        + TAIL
    ],
    "bailingmoe": [
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
    "seed-coder": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|" + TAIL],
    "exaone-moe": [
        CONTRACTIONS
        + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
    "minicpm5": [
        r"\p{N}{1,3}",
        CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL,
    ],
    "spark2_5": [
        r"\p{N}{1,3}",
        CJK,
        ASCII_MARKS + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+",
        r"\p{N}",
    ],
    "tiny_aya": [THOUSANDS, GPT4O],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "bloom": [r" ?[^(\s|.,!?…。，、।۔،)]+"],
    "viking": [r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}"],
    "laguna": [r"[^\n]+|[\n]+", QWEN2],
    "chameleon": [
        "<sentinel:[0-9]+>",
        "(?:IMGIMG)(?:(?:A|B|C|D|E|F|G|H|I){1,4})Z",
        r"(?:[\t\n]|    |  )",
        r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]",
        GPT2,
    ],
    "gemma4": [r"[^\n]+|[\n]+"],
}

TEXTS = [
    "",
    " ",
    "   ",
    "\t\n",
    "Hello, world! I'll say it's DON'T we've 'til",
    "  two  spaces   then    four\n\n\n  indented\r\n\ttab \n",
    "1 12 123 1234 12345 1234567 3.14159 0x1F ½ Ⅷ 1234abc v2",
    "camelCaseHTTPServer snake_case_name XMLHttpRequest2 iPhone",
    "Grüße an die Ökonomie: naïve café, Ǆungla, ʰa",
    "Привет, мир! Я — строка. ΑΒΓ αβγ",
    "我想在apple工作1314151天～ 日本語のテキスト、カタカナ 한국어 문장",
    "नमस्ते दुनिया। ไทยไม่มีช่องว่าง مرحبا بالعالم، १२३४५",
    "🚀 (normal) 😶‍🌫️ ✅ 👩‍💻!!",
    "a\u00a0b\u3000c \u2003 d\u0085e\u200bf",
    "if (x == 1) { return \"a\\n\"; } // note\n\n  #include <x.h>",
    "$100 + 20% = €5 ~ `code` ^ | <tag> ... ---- ____",
    "<sentinel:12> IMGIMGABCZ e\u0301e\u0301 1\u20e3",
]
chance = random.Random(7)
TEXTS += ["".join(chance.choice(" \n\t\ra1B.é中'sm२") for _ in range(chance.randrange(1, 24))) for _ in range(60)]


def cut(pattern, piece):
    parts, done = [], 0
    for match in pattern.finditer(piece):
        parts += [piece[done : match.start()], match.group()]
        done = match.end()
    return [part for part in [*parts, piece[done:]] if part]


def split(rules, text):
    pieces = [text] if text else []
    for rule in rules:
        pattern = regex.compile(rule, regex.V1)
        pieces = [part for piece in pieces for part in cut(pattern, piece)]
    return pieces


rows = {name: [split(rules, text) for text in TEXTS] for name, rules in RULES.items()}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps({"texts": TEXTS, "pieces": rows}, ensure_ascii=False, indent=0, separators=(",", ":")) + "\n")
