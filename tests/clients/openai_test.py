"""OpenAI's official client against a running server with the demo model: SCONCE_URL says where.

    SCONCE_URL=http://127.0.0.1:8080 python tests/clients/openai_test.py

SCONCE_EMBED_MODEL names an encoder, if one is served.
"""

import asyncio
import json
import math
import os
import time
import unittest
import urllib.request
from typing import Literal

import openai
from pydantic import BaseModel, Field

URL = os.environ["SCONCE_URL"]
CLIENT = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
MODEL = os.environ.get("SCONCE_MODEL", "sconce-demo")
EMBED_MODEL = os.environ.get("SCONCE_EMBED_MODEL")
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Bern", "Basel"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS, "strict": True}
NOTHING = {"name": "do_nothing", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": NOTHING}]


class Weather(BaseModel):
    city: Literal["Bern", "Basel"]
    degrees: int = Field(ge=-40, le=50)


def chat(said="What is Sconce?", **more):
    """The fields of a greedy chat; a conversation may be given as a text."""
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    return {"model": MODEL, "messages": messages, "temperature": 0, "max_completion_tokens": 60, **more}


def answer(*said, **more):
    return CLIENT.chat.completions.create(**chat(*said, **more))


def text(*said, **more):
    return answer(*said, **more).choices[0].message.content


def respond(said="What is Sconce?", **more):
    return CLIENT.responses.create(**{"model": MODEL, "input": said, "temperature": 0, "max_output_tokens": 60, **more})


def check_weather(arguments):
    call = json.loads(arguments)
    assert call["city"] in ("Bern", "Basel") and 1 <= call["days"] <= 9, arguments


class Models(unittest.TestCase):
    def test_models_are_listed(self):
        self.assertIn(MODEL, [model.id for model in CLIENT.models.list()])
        model = CLIENT.models.retrieve(MODEL)
        self.assertEqual((model.id, model.object, model.owned_by), (MODEL, "model", "sconce"))
        self.assertGreaterEqual(model.created, 0)


class Chat(unittest.TestCase):
    def test_an_answer(self):
        got = answer()
        choice = got.choices[0]
        self.assertEqual((got.object, got.model, choice.index, choice.message.role), ("chat.completion", MODEL, 0, "assistant"))
        self.assertIn(choice.finish_reason, ("stop", "length"))
        self.assertTrue(choice.message.content and got.id.startswith("chatcmpl-") and got.system_fingerprint)
        self.assertEqual(got.usage.total_tokens, got.usage.prompt_tokens + got.usage.completion_tokens)
        self.assertEqual(got.usage.completion_tokens_details.reasoning_tokens, 0)
        self.assertTrue(got._request_id)

    def test_streamed_text_is_the_whole_text(self):
        for said in ("What is Sconce?", "Tell me a story.", "Hi"):
            whole = answer(said)
            stream = CLIENT.chat.completions.create(**chat(said, stream=True, stream_options={"include_usage": True}))
            *chunks, last = list(stream)
            self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            self.assertEqual(streamed, whole.choices[0].message.content)
            self.assertEqual(chunks[-1].choices[0].finish_reason, whole.choices[0].finish_reason)
            self.assertTrue(all(chunk.usage is None for chunk in chunks))
            self.assertEqual((last.choices, last.usage.total_tokens), ([], whole.usage.total_tokens))
            self.assertGreaterEqual(last.usage.prompt_tokens_details.cached_tokens, 0)

    def test_a_prompt_that_was_read_before_is_cached(self):
        said = "Please remember this: " + "one two three four five six seven. " * 12
        answer(said)
        self.assertGreater(answer(said).usage.prompt_tokens_details.cached_tokens, 0)

    def test_seed_n_and_temperature(self):
        more = {"temperature": 1, "seed": 7, "n": 3, "max_completion_tokens": 12}
        one, two = answer(**more), answer(**more)
        texts = [choice.message.content for choice in one.choices]
        self.assertEqual(texts, [choice.message.content for choice in two.choices])
        self.assertEqual([choice.index for choice in one.choices], [0, 1, 2])
        # Each choice has a seed of its own: the second is the first of the next seed.
        self.assertEqual(texts[1], text(temperature=1, seed=8, max_completion_tokens=12))

    def test_stop_and_length(self):
        whole = text()
        word = whole.split()[2]
        stopped = answer(stop=["\u2603", word]).choices[0]
        self.assertEqual((stopped.finish_reason, stopped.message.content), ("stop", whole[: whole.index(word)]))
        cut = answer(max_completion_tokens=3)
        self.assertEqual((cut.choices[0].finish_reason, cut.usage.completion_tokens), ("length", 3))

    def test_logprobs(self):
        choice = answer(logprobs=True, top_logprobs=3, max_completion_tokens=8).choices[0]
        tokens = choice.logprobs.content
        self.assertEqual(b"".join(bytes(token.bytes) for token in tokens).decode()[: len(choice.message.content)], choice.message.content)
        for token in tokens:
            best = token.top_logprobs
            self.assertEqual(len(best), 3)
            self.assertLessEqual(token.logprob, 0)
            # Greedy: the token is the most likely one.
            self.assertAlmostEqual(token.logprob, best[0].logprob, places=4)
            self.assertEqual(best, sorted(best, key=lambda other: -other.logprob))
            self.assertLessEqual(sum(math.exp(other.logprob) for other in best), 1.0001)

    def test_logit_bias(self):
        token = answer(max_completion_tokens=1, logprobs=True).choices[0].logprobs.content[0]
        data = json.dumps({"text": token.token, "add_special": False}).encode()
        with urllib.request.urlopen(f"{URL}/encode", data) as reply:
            (banned,) = json.load(reply)["data"]["tokens"]
        other = answer(max_completion_tokens=1, logprobs=True, logit_bias={str(banned): -100}).choices[0].logprobs.content[0]
        self.assertNotEqual(other.bytes, token.bytes)

    def test_a_conversation_with_all_kinds_of_messages(self):
        messages = [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "How is the weather in Bern?"}], "name": "Ann"},
            {"role": "assistant", "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Bern\", \"days\": 1}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Snow."},
        ]
        choice = answer(messages, tools=TOOLS, tool_choice="none").choices[0]
        self.assertIn(choice.finish_reason, ("stop", "length"))
        self.assertIsNone(choice.message.tool_calls)


class Tools(unittest.TestCase):
    def test_required_and_named(self):
        named = {"type": "function", "function": {"name": "get_weather"}}
        for choice in ("required", named):
            more = {"tools": TOOLS[:1] if choice == "required" else TOOLS, "tool_choice": choice}
            got = answer("How is the weather in Bern?", parallel_tool_calls=False, max_completion_tokens=200, **more)
            (call,) = got.choices[0].message.tool_calls
            self.assertEqual((got.choices[0].finish_reason, call.type, call.function.name), ("tool_calls", "function", "get_weather"))
            self.assertTrue(call.id.startswith("call_"))
            check_weather(call.function.arguments)

    def test_streamed_arguments(self):
        more = {"tools": TOOLS[:1], "tool_choice": "required", "parallel_tool_calls": False, "max_completion_tokens": 200}
        whole = answer("How is the weather?", **more).choices[0].message.tool_calls[0]
        with CLIENT.chat.completions.stream(**chat("How is the weather?", **more)) as stream:
            deltas = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
            final = stream.get_final_completion().choices[0]
        self.assertGreater(len(deltas), 1)
        self.assertEqual("".join(deltas), whole.function.arguments)
        self.assertEqual((final.finish_reason, final.message.tool_calls[0].function.arguments), ("tool_calls", whole.function.arguments))


class StructuredOutput(unittest.TestCase):
    def test_a_type_is_parsed(self):
        got = CLIENT.chat.completions.parse(**chat("The weather, please.", response_format=Weather, max_completion_tokens=500))
        self.assertIsInstance(got.choices[0].message.parsed, Weather)

    def test_any_object(self):
        got = answer("JSON, please.", response_format={"type": "json_object"}, max_completion_tokens=500).choices[0]
        if got.finish_reason == "stop":
            self.assertIsInstance(json.loads(got.message.content), dict)
        else:
            self.assertTrue(got.message.content.startswith("{"))

    def test_extensions(self):
        self.assertIn(text(extra_body={"choice": ["red", "green"]}), ("red", "green"))
        self.assertRegex(text(extra_body={"regex": "[0-9]{4}"}), "^[0-9]{4}$")


class Completions(unittest.TestCase):
    def ask(self, prompt="Once upon", **more):
        return CLIENT.completions.create(**{"model": MODEL, "prompt": prompt, "temperature": 0, "max_tokens": 8, **more})

    def test_prompts_of_every_shape(self):
        one = self.ask()
        data = json.dumps({"text": "Once upon"}).encode()
        with urllib.request.urlopen(f"{URL}/encode", data) as reply:
            tokens = json.load(reply)["data"]["tokens"]
        self.assertEqual(self.ask(tokens).choices[0].text, one.choices[0].text)
        several = self.ask(["Once upon", "Sconce is"], n=2, seed=1)
        self.assertEqual([choice.index for choice in several.choices], [0, 1, 2, 3])
        self.assertEqual({choice.text for choice in several.choices[:2]}, {one.choices[0].text})
        self.assertEqual((one.object, one.usage.completion_tokens), ("text_completion", 8))

    def test_echo_and_logprobs(self):
        got = self.ask(echo=True, logprobs=2)
        choice = got.choices[0]
        self.assertTrue(choice.text.startswith("Once upon"))
        logprobs = choice.logprobs
        self.assertEqual("".join(logprobs.tokens), choice.text)
        self.assertEqual(logprobs.text_offset[0], 0)
        # The first token of a text follows nothing.
        self.assertIsNone(logprobs.token_logprobs[0])
        self.assertTrue(all(logprob <= 0 for logprob in logprobs.token_logprobs[1:]))
        for sizes in (len(logprobs.token_logprobs), len(logprobs.top_logprobs), len(logprobs.text_offset)):
            self.assertEqual(sizes, len(logprobs.tokens))

    def test_a_stream(self):
        whole = self.ask().choices[0].text
        chunks = list(self.ask(stream=True))
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), whole)
        self.assertEqual(chunks[-1].choices[0].finish_reason, "length")


@unittest.skipUnless(EMBED_MODEL, "no encoder is served")
class Embeddings(unittest.TestCase):
    def embed(self, given, **more):
        return CLIENT.embeddings.create(model=EMBED_MODEL, input=given, **more)

    def test_vectors(self):
        texts = ["A cat sits on the mat.", "A kitten is on the rug.", "Shares fell on Monday."]
        got = self.embed(texts)
        self.assertEqual((got.object, got.model, [entry.index for entry in got.data]), ("list", EMBED_MODEL, [0, 1, 2]))
        self.assertEqual(got.usage.prompt_tokens, got.usage.total_tokens)
        cat, kitten, shares = (entry.embedding for entry in got.data)
        dot = lambda a, b: sum(x * y for x, y in zip(a, b))
        self.assertAlmostEqual(dot(cat, cat), 1, places=4)
        self.assertGreater(dot(cat, kitten), dot(cat, shares) + 0.2)

    def test_both_encodings_are_the_same(self):
        # The client asks for base64 unless it is told otherwise.
        numbers, packed = self.embed("Hello", encoding_format="float"), self.embed("Hello")
        self.assertEqual(len(numbers.data[0].embedding), len(packed.data[0].embedding))
        for a, b in zip(numbers.data[0].embedding, packed.data[0].embedding):
            self.assertAlmostEqual(a, b, places=6)

    def test_fewer_dimensions(self):
        whole = self.embed("Hello").data[0].embedding
        cut = self.embed("Hello", dimensions=8).data[0].embedding
        length = math.sqrt(sum(x * x for x in whole[:8]))
        for a, b in zip(cut, whole):
            self.assertAlmostEqual(a, b / length, places=5)

    def test_bad_inputs(self):
        for more, param in (
            ({"given": ["a", ""]}, "input[1]"),
            ({"given": []}, "input"),
            ({"given": "word " * 5000}, "input"),
            ({"given": "a", "dimensions": 100_000}, "dimensions"),
        ):
            with self.assertRaises(openai.BadRequestError) as caught:
                self.embed(**more)
            self.assertEqual(caught.exception.param, param)
        self.assertTrue(self.embed("word " * 5000, extra_body={"truncate": True}).data)
        with self.assertRaises(openai.BadRequestError) as caught:
            answer(model=EMBED_MODEL)
        self.assertEqual(caught.exception.param, "model")


class Responses(unittest.TestCase):
    def test_a_response_is_kept(self):
        got = respond(metadata={"a": "b"}, instructions="Be brief.")
        self.assertIn(got.status, ("completed", "incomplete"))
        self.assertTrue(got.output_text and got.id.startswith("resp_"))
        self.assertEqual((got.model, got.metadata, got.instructions), (MODEL, {"a": "b"}, "Be brief."))
        self.assertEqual(got.usage.total_tokens, got.usage.input_tokens + got.usage.output_tokens)
        self.assertEqual(CLIENT.responses.retrieve(got.id), got)
        (item,) = CLIENT.responses.input_items.list(got.id).data
        self.assertEqual((item.role, item.content[0].text), ("user", "What is Sconce?"))
        CLIENT.responses.delete(got.id)
        with self.assertRaises(openai.NotFoundError):
            CLIENT.responses.retrieve(got.id)

    def test_it_says_what_chat_says(self):
        self.assertEqual(respond().output_text, text())

    def test_a_stream(self):
        whole = respond()
        events = list(respond(stream=True))
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        kinds = [event.type for event in events]
        self.assertEqual(kinds[:4], [
            "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"])
        self.assertEqual(kinds[-4:-1], [
            "response.output_text.done", "response.content_part.done", "response.output_item.done"])
        self.assertIn(kinds[-1], ("response.completed", "response.incomplete"))
        self.assertEqual(set(kinds[4:-4]), {"response.output_text.delta"})
        self.assertEqual("".join(event.delta for event in events[4:-4]), whole.output_text)
        self.assertEqual(events[-1].response.output_text, whole.output_text)
        self.assertEqual(events[-1].response.usage.output_tokens, whole.usage.output_tokens)

    def test_the_streaming_helper(self):
        with CLIENT.responses.stream(model=MODEL, input="Hi", temperature=0) as stream:
            pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
            final = stream.get_final_response()
        self.assertEqual("".join(pieces), final.output_text)

    def test_a_conversation_goes_on(self):
        first = respond("What is Sconce?")
        second = respond("And who made it?", previous_response_id=first.id)
        turns = [
            {"role": "user", "content": "What is Sconce?"},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "And who made it?"},
        ]
        self.assertEqual(second.output_text, text(turns))
        # The same with the items themselves.
        items = [{"role": "user", "content": "What is Sconce?"}, *first.output, {"role": "user", "content": "And who made it?"}]
        self.assertEqual(respond(items, store=False).output_text, second.output_text)
        with self.assertRaises(openai.BadRequestError) as caught:
            respond(previous_response_id="resp_none")
        self.assertEqual((caught.exception.param, caught.exception.code), ("previous_response_id", "previous_response_not_found"))

    def test_in_the_background(self):
        got = respond(background=True)
        self.assertIn(got.status, ("queued", "in_progress"))
        while got.status in ("queued", "in_progress"):
            time.sleep(0.05)
            got = CLIENT.responses.retrieve(got.id)
        self.assertEqual(got.output_text, respond().output_text)

    def test_cancelled_in_the_background(self):
        got = respond("Tell me a very long story.", background=True, temperature=1.9, max_output_tokens=900)
        ended = CLIENT.responses.cancel(got.id)
        # It may have been quicker.
        self.assertIn(ended.status, ("cancelled", "completed", "incomplete"))
        self.assertEqual(CLIENT.responses.cancel(got.id).status, ended.status)
        with self.assertRaises(openai.BadRequestError):
            CLIENT.responses.cancel(respond().id)

    def test_function_calls(self):
        tools = [{"type": "function", **WEATHER}]
        more = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 200}
        got = respond("How is the weather?", **more)
        call = got.output[-1]
        self.assertEqual((call.type, call.name, call.status), ("function_call", "get_weather", "completed"))
        check_weather(call.arguments)
        events = list(respond("How is the weather?", stream=True, **more))
        deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        done = [event for event in events if event.type == "response.function_call_arguments.done"]
        self.assertEqual(("".join(deltas), done[0].arguments, done[0].name), (call.arguments, call.arguments, "get_weather"))
        result = [{"type": "function_call_output", "call_id": call.call_id, "output": "Snow."}]
        after = respond(result, previous_response_id=got.id, tools=tools, tool_choice="none")
        self.assertIn(after.status, ("completed", "incomplete"))

    def test_structured_output(self):
        got = CLIENT.responses.parse(model=MODEL, input="The weather, please.", text_format=Weather, temperature=0)
        self.assertIsInstance(got.output_parsed, Weather)

    def test_logprobs(self):
        got = respond(include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=5)
        (part,) = got.output[0].content
        self.assertEqual("".join(token.token for token in part.logprobs), part.text)
        self.assertTrue(all(len(token.top_logprobs) == 2 for token in part.logprobs))


class Errors(unittest.TestCase):
    def check(self, kind, param, code, ask):
        with self.assertRaises(kind) as caught:
            ask()
        error = caught.exception
        self.assertEqual((error.param, error.code, error.type), (param, code, "invalid_request_error"))

    def test_an_unknown_model(self):
        for ask in (
            lambda: answer(model="none"),
            lambda: answer(model="none", stream=True),
            lambda: respond(model="none"),
            lambda: CLIENT.completions.create(model="none", prompt="a"),
            lambda: CLIENT.embeddings.create(model="none", input="a"),
            lambda: CLIENT.models.retrieve("none"),
        ):
            self.check(openai.NotFoundError, "model", "model_not_found", ask)

    def test_bad_requests(self):
        for more, param, code in (
            ({"extra_body": {"word": 1}}, "word", "invalid_request"),
            ({"temperature": 2.5}, "temperature", "invalid_request"),
            ({"n": 0}, "n", "invalid_request"),
            ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_request"),
            ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
            ({"audio": {"format": "wav", "voice": "ash"}}, "audio", "unsupported_parameter"),
            ({"said": []}, "messages", "invalid_request"),
            ({"said": "word " * 5000}, "messages", "context_length_exceeded"),
            ({"said": "word " * 5000, "stream": True}, "messages", "context_length_exceeded"),
        ):
            self.check(openai.BadRequestError, param, code, lambda: answer(**more))
        self.check(openai.BadRequestError, "background", "unsupported_parameter", lambda: respond(background=True, stream=True))
        self.check(openai.BadRequestError, "input", "context_length_exceeded", lambda: respond("word " * 5000))

    def test_images_are_never_fetched(self):
        image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}
        ask = lambda: answer([{"role": "user", "content": [image]}])
        self.check(openai.BadRequestError, "messages[0].content[0]", "unsupported_parameter", ask)


class Many(unittest.TestCase):
    STREAMS = 32

    def test_half_of_many_streams_are_left(self):
        whole = text("Tell me a story.", max_completion_tokens=200)

        async def stream(client, leave):
            got = ""
            async with await client.chat.completions.create(
                **chat("Tell me a story.", stream=True, max_completion_tokens=200)
            ) as chunks:
                async for chunk in chunks:
                    got += chunk.choices[0].delta.content or ""
                    if leave and got:
                        break
            return got

        async def all_of_them():
            async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0) as client:
                return await asyncio.gather(*(stream(client, i % 2 == 1) for i in range(self.STREAMS)))

        for i, got in enumerate(asyncio.run(all_of_them())):
            if i % 2 == 0:
                self.assertEqual(got, whole)
            else:
                self.assertTrue(whole.startswith(got) and got)
        names = ("sconce_requests_running", "sconce_queue_size", "sconce_kv_blocks_used")
        deadline = time.monotonic() + 10
        while True:
            with urllib.request.urlopen(f"{URL}/metrics") as page:
                lines = [line.split() for line in page.read().decode().splitlines() if not line.startswith("#")]
            gauges = {line[0]: float(line[1]) for line in lines if line[0] in names}
            if not any(gauges.values()) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        self.assertEqual(gauges, dict.fromkeys(names, 0))


if __name__ == "__main__":
    unittest.main()
