"""Makes the expected prompts of the chat template tests with Python's Jinja2, set up as transformers sets it up.

    pip install jinja2==3.1.6
    python render.py [FOLDER_WITH_MODEL_TEMPLATES]

Renders each conversation of conversations.json with each template, and writes TEMPLATE.json: for each conversation the
prompt, {"refused": why} where the template raised an exception, or {"failed": why} where Python did.
"""
import json
import pathlib
import sys

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

assert jinja2.__version__ == "3.1.6", "the expected prompts are Jinja2 3.1.6's"


class Generation(Extension):
    """Takes {% generation %} … {% endgeneration %} for what is inside."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class Refused(Exception):
    pass


def raise_exception(message):
    raise Refused(message)


def strftime_now(format):
    from datetime import datetime

    return datetime.now().strftime(format)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = strftime_now


def render(template, case):
    try:
        return template.render(
            messages=case["messages"],
            add_generation_prompt=case["add_generation_prompt"],
            bos_token="<s>",
            eos_token="</s>",
            **case.get("extra", {}),
        )
    except Refused as e:
        return {"refused": str(e)}
    except Exception as e:
        return {"failed": f"{type(e).__name__}: {e}"}


here = pathlib.Path(__file__).parent
cases = json.loads((here / "conversations.json").read_text())
for folder in [here, *map(pathlib.Path, sys.argv[1:])]:
    for path in sorted(folder.glob("*.jinja")):
        template = env.from_string(path.read_text())
        prompts = [render(template, case) for case in cases]
        (here / (path.stem + ".json")).write_text(json.dumps(prompts, ensure_ascii=False, indent=1) + "\n")
