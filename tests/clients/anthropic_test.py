"""Anthropic's official client against a running server with the demo model: SCONCE_URL says where.

    SCONCE_URL=http://127.0.0.1:8080 python tests/clients/anthropic_test.py
"""

import asyncio
import os
import unittest
from typing import Literal

import anthropic
from pydantic import BaseModel

URL = os.environ["SCONCE_URL"]
CLIENT = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
MODEL = os.environ.get("SCONCE_MODEL", "demo")
GREEDY = {"temperature": 0}
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Bern", "Basel"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
NOTHING = {"name": "do_nothing", "input_schema": {"type": "object", "properties": {}, "additionalProperties": False}}


def ask(said="What is Sconce?", **more):
    """The fields of a request; a message may be given as a text."""
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    return {"model": MODEL, "max_tokens": 60, "messages": messages, "extra_body": GREEDY, **more}


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def input_tokens(usage):
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


class Messages(unittest.TestCase):
    def test_a_message(self):
        message = CLIENT.messages.create(**ask())
        self.assertEqual((message.type, message.role, message.model), ("message", "assistant", MODEL))
        self.assertTrue(message.id.startswith("msg_"))
        self.assertIn(message.stop_reason, ("end_turn", "max_tokens"))
        self.assertTrue(message.content[0].text)
        self.assertGreater(message.usage.output_tokens, 0)
        self.assertTrue(message._request_id)

    def test_a_conversation_goes_on_with_what_was_answered(self):
        first = CLIENT.messages.create(**ask())
        turns = [
            {"role": "user", "content": "What is Sconce?"},
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [{"type": "text", "text": "Hello!", "cache_control": {"type": "ephemeral"}}]},
        ]
        self.assertTrue(text_of(CLIENT.messages.create(**ask(turns))))

    def test_a_system_prompt_is_read(self):
        system = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": " Rhyme."}]
        blocks = CLIENT.messages.create(**ask(system=system))
        text = CLIENT.messages.create(**ask(system="Be brief. Rhyme."))
        without = CLIENT.messages.create(**ask())
        self.assertEqual(text_of(blocks), text_of(text))
        self.assertEqual(input_tokens(blocks.usage), input_tokens(text.usage))
        self.assertGreater(input_tokens(text.usage), input_tokens(without.usage))

    def test_max_tokens(self):
        message = CLIENT.messages.create(**ask(max_tokens=3))
        self.assertEqual((message.stop_reason, message.usage.output_tokens), ("max_tokens", 3))

    def test_no_tokens_fill_the_cache(self):
        said = "Please remember this: " + "one two three four five six seven. " * 12
        warmed = CLIENT.messages.create(**ask(said, max_tokens=0))
        self.assertEqual((warmed.content, warmed.usage.output_tokens), ([], 0))
        self.assertGreater(CLIENT.messages.create(**ask(said)).usage.cache_read_input_tokens, 0)

    def test_stop_sequences(self):
        whole = text_of(CLIENT.messages.create(**ask()))
        word = whole.split()[2]
        message = CLIENT.messages.create(**ask(stop_sequences=["\u2603", word]))
        self.assertEqual((message.stop_reason, message.stop_sequence), ("stop_sequence", word))
        self.assertEqual(text_of(message), whole[: whole.index(word)])

    def test_what_the_assistant_began_is_gone_on_with(self):
        begun = [{"role": "user", "content": "What is Sconce?"}, {"role": "assistant", "content": "Sconce is"}]
        self.assertIn(CLIENT.messages.create(**ask(begun)).stop_reason, ("end_turn", "max_tokens"))

    def test_the_async_client(self):
        async def both():
            async with anthropic.AsyncAnthropic(base_url=URL, api_key="none", max_retries=0) as client:
                message = await client.messages.create(**ask())
                async with client.messages.stream(**ask()) as stream:
                    return text_of(message), await stream.get_final_text()

        whole, streamed = asyncio.run(both())
        self.assertEqual(whole, streamed)


class Streams(unittest.TestCase):
    def test_streamed_text_is_the_whole_text(self):
        for said in ("What is Sconce?", "Tell me a story.", "Hi"):
            whole = CLIENT.messages.create(**ask(said))
            with CLIENT.messages.stream(**ask(said)) as stream:
                pieces = list(stream.text_stream)
                message = stream.get_final_message()
                self.assertTrue(stream.request_id)
            self.assertEqual("".join(pieces), text_of(whole))
            self.assertEqual(text_of(message), text_of(whole))
            self.assertEqual(message.stop_reason, whole.stop_reason)
            self.assertEqual(message.usage.output_tokens, whole.usage.output_tokens)
            self.assertEqual(input_tokens(message.usage), input_tokens(whole.usage))

    def test_events_come_in_order(self):
        kinds = [event.type for event in CLIENT.messages.create(**ask(stream=True))]
        self.assertEqual(kinds[:2], ["message_start", "content_block_start"])
        self.assertEqual(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"])
        self.assertEqual(set(kinds[2:-3]), {"content_block_delta"})

    def test_a_stop_sequence_at_once_leaves_an_empty_text(self):
        word = text_of(CLIENT.messages.create(**ask())).split()[0]
        with CLIENT.messages.stream(**ask(stop_sequences=[word])) as stream:
            self.assertEqual(stream.get_final_text(), "")
            self.assertEqual(stream.get_final_message().stop_sequence, word)

    def test_a_stream_may_be_left(self):
        with CLIENT.messages.stream(**ask("Tell me a story.", max_tokens=900)) as stream:
            next(iter(stream.text_stream))
        self.assertTrue(text_of(CLIENT.messages.create(**ask("Hi"))))


class Tools(unittest.TestCase):
    def check(self, block, name):
        self.assertEqual((block.type, block.name), ("tool_use", name))
        self.assertTrue(block.id.startswith("toolu_"))
        if name == "get_weather":
            self.assertIn(block.input["city"], ("Bern", "Basel"))
            self.assertTrue(1 <= block.input["days"] <= 9)

    def test_one_tool(self):
        choice = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
        more = {"tools": [WEATHER, NOTHING], "tool_choice": choice, "max_tokens": 200}
        message = CLIENT.messages.create(**ask("How is the weather in Bern?", **more))
        self.assertEqual((message.stop_reason, len(message.content)), ("tool_use", 1))
        self.check(message.content[0], "get_weather")
        with CLIENT.messages.stream(**ask("How is the weather in Bern?", **more)) as stream:
            partial = "".join(event.partial_json for event in stream if event.type == "input_json")
            streamed = stream.get_final_message()
        self.assertTrue(partial.startswith("{"))
        self.assertEqual(streamed.content[0].input, message.content[0].input)
        self.assertEqual(streamed.stop_reason, "tool_use")

    def test_any_tool_and_its_result(self):
        choice = {"type": "any", "disable_parallel_tool_use": True}
        more = {"tools": [WEATHER], "tool_choice": choice, "max_tokens": 200}
        message = CLIENT.messages.create(**ask("How is the weather?", **more))
        call = message.content[-1]
        self.check(call, "get_weather")
        result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Snow."}]}
        turns = [
            {"role": "user", "content": "How is the weather?"},
            message.to_param(),
            {"role": "user", "content": [result, {"type": "text", "text": "Well?"}]},
        ]
        answer = CLIENT.messages.create(**ask(turns, tools=[WEATHER], tool_choice={"type": "none"}))
        self.assertIn(answer.stop_reason, ("end_turn", "max_tokens"))

    def test_a_strict_tool_need_not_be_called(self):
        message = CLIENT.messages.create(**ask("Hi", tools=[{**WEATHER, "strict": True}]))
        self.assertIn(message.stop_reason, ("end_turn", "max_tokens", "tool_use"))


class Output(unittest.TestCase):
    class Weather(BaseModel):
        # No free text: the demo model would not find its end.
        city: Literal["Bern", "Basel"]
        sunny: bool

    def test_a_schema_holds(self):
        schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
        config = {"format": {"type": "json_schema", "schema": schema}}
        message = CLIENT.messages.create(**ask(output_config=config))
        self.assertIn(text_of(message).replace(" ", ""), ('{"a":1}', '{"a":2}'))

    def test_a_type_is_parsed(self):
        message = CLIENT.messages.parse(**ask("The weather, please.", output_format=self.Weather, max_tokens=300))
        self.assertIsInstance(message.parsed_output, self.Weather)
        with CLIENT.messages.stream(**ask("The weather, please.", output_format=self.Weather, max_tokens=300)) as stream:
            self.assertEqual(stream.get_final_message().parsed_output, message.parsed_output)


class Counting(unittest.TestCase):
    def test_counts_are_what_is_used(self):
        turns = [
            {"role": "user", "content": "What is Sconce? 🕯"},
            {"role": "assistant", "content": "A server."},
            {"role": "user", "content": [{"type": "text", "text": "And who made it?"}]},
        ]
        for more in ({}, {"system": "Be brief."}, {"tools": [WEATHER], "tool_choice": {"type": "auto"}}):
            counted = CLIENT.messages.count_tokens(model=MODEL, messages=turns, **more)
            used = CLIENT.messages.create(**ask(turns, **more)).usage
            self.assertEqual(counted.input_tokens, input_tokens(used), more)

    def test_a_prompt_may_be_longer_than_the_context(self):
        messages = [{"role": "user", "content": "word " * 5000}]
        self.assertGreater(CLIENT.messages.count_tokens(model=MODEL, messages=messages).input_tokens, 1024)


class Errors(unittest.TestCase):
    def check(self, kind, error_type, words, **request):
        with self.assertRaises(kind) as caught:
            CLIENT.messages.create(**request)
        error = caught.exception
        self.assertEqual((error.body["type"], error.body["error"]["type"]), ("error", error_type))
        self.assertIn(words, error.body["error"]["message"])
        self.assertEqual(error.request_id, error.body["request_id"])
        self.assertTrue(error.request_id)

    def bad(self, words, *said, **more):
        self.check(anthropic.BadRequestError, "invalid_request_error", words, **ask(*said, **more))

    def test_an_unknown_model(self):
        self.check(anthropic.NotFoundError, "not_found_error", "claude-none", **ask() | {"model": "claude-none"})
        with self.assertRaises(anthropic.NotFoundError):
            CLIENT.messages.count_tokens(model="claude-none", messages=ask()["messages"])

    def test_bad_requests(self):
        self.bad("word", extra_body={"word": 1})
        self.bad("temperature", extra_body={"temperature": 1.5})
        self.bad("max_tokens", max_tokens=-1)
        self.bad("messages", [])
        self.bad("thinking", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000)
        self.bad("tools[0].type", tools=[{"type": "web_search_20250305", "name": "web_search"}])
        self.bad("tool_choice", tool_choice={"type": "any"})
        self.bad("tool_use_id", [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}])
        self.bad("context", "word " * 5000)

    def test_images_are_never_fetched(self):
        image = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:1/x.png"}}
        self.bad("images are not supported", [{"role": "user", "content": [image]}])

    def test_an_error_before_a_stream_begins_has_its_status(self):
        with self.assertRaises(anthropic.BadRequestError):
            with CLIENT.messages.stream(**ask("word " * 5000)) as stream:
                stream.get_final_message()


if __name__ == "__main__":
    unittest.main()
