"""Makes the expected prompts of the chat template tests with Python's Jinja2, set up as transformers sets it up.

    pip install jinja2
    python render.py [FOLDER_WITH_MODEL_TEMPLATES]
"""
import json
import pathlib
import sys

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """Takes {% generation %} … {% endgeneration %} for what is inside."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception

tool = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a place: <b>now</b> & soon, it's good",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
talk = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "Grüße! <b>1 < 2</b> & it's \"ok\"  "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."},
    {"role": "user", "content": "Why?"},
]
call = [
    {"role": "user", "content": "Weather in Oslo?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo", "n": [1, 2.5, None, True]}}}],
    },
    {"role": "tool", "content": "{\"celsius\": 21}"},
]
cases = [
    (talk, True, {}),
    (talk, False, {}),
    (talk[1:2], True, {"enable_thinking": False}),
    (talk, True, {"tools": [tool], "enable_thinking": True}),
    (call, True, {"tools": [tool]}),
    (talk[1:], True, {"extras": {"x": "é", "list": [], "deep": {"a": [1, {}]}}}),
    (talk[2:], True, {}),
]


def render(source, messages, add_generation_prompt, extra):
    try:
        return {
            "expected": env.from_string(source).render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                bos_token="<s>",
                eos_token="</s>",
                **extra,
            )
        }
    except jinja2.exceptions.TemplateError as e:
        return {"refused": str(e)}


here = pathlib.Path(__file__).parent
for folder in [here, *map(pathlib.Path, sys.argv[1:])]:
    for path in sorted(folder.glob("*.jinja")):
        rows = []
        for messages, prompt, extra in cases:
            extra = {"date_string": "26 Jul 2024", **extra}
            row = {"messages": messages, "add_generation_prompt": prompt, "extra": extra}
            rows.append(row | render(path.read_text(), messages, prompt, extra))
        text = json.dumps(rows, ensure_ascii=False, indent=1)
        (here / (path.stem + ".json")).write_text(text + "\n")
