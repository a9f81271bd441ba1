"""The official client of Ollama against a running server, whose address is in SCONCE_URL."""

import datetime
import json
import os
import unittest

import ollama

URL = os.environ["SCONCE_URL"]
GREEDY = {"temperature": 0, "num_predict": 24, "repeat_penalty": 1.0}
HELLO = [{"role": "user", "content": "What is Sconce?"}]


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
      a: The first
      b: The second
    """
    return a + b


class OllamaTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = ollama.Client(host=URL)
        cls.model = os.environ.get("SCONCE_MODEL", "demo") + ":latest"

    @classmethod
    def tearDownClass(cls):
        cls.client.close()

    def check_account(self, last, reasons=("stop", "length")):
        self.assertTrue(last.done)
        self.assertIn(last.done_reason, reasons)
        for count in (last.prompt_eval_count, last.eval_count, last.total_duration, last.eval_duration):
            self.assertGreater(count, 0)
        self.assertGreaterEqual(last.total_duration, last.prompt_eval_duration + last.eval_duration)
        datetime.datetime.fromisoformat(last.created_at.replace("Z", "+00:00"))

    def test_chat_streamed_is_chat_whole(self):
        whole = self.client.chat(self.model, HELLO, options=GREEDY)
        self.assertEqual(whole.message.role, "assistant")
        self.assertTrue(whole.message.content)
        self.check_account(whole)
        parts = list(self.client.chat(self.model, HELLO, options=GREEDY, stream=True))
        self.assertEqual("".join(part.message.content for part in parts), whole.message.content)
        self.assertEqual([part.done for part in parts], [False] * (len(parts) - 1) + [True])
        self.check_account(parts[-1])
        self.assertEqual(parts[-1].eval_count, whole.eval_count)

    def test_generate_streamed_is_generate_whole(self):
        ask = dict(model=self.model, prompt="What is Sconce?", options=GREEDY)
        whole = self.client.generate(**ask)
        self.assertTrue(whole.response)
        self.check_account(whole)
        self.assertEqual(len(whole.context), whole.prompt_eval_count + whole.eval_count)
        parts = list(self.client.generate(**ask, stream=True))
        self.assertEqual("".join(part.response for part in parts), whole.response)
        self.assertEqual(parts[-1].context, whole.context)
        # A conversation goes on where it was left.
        again = self.client.generate(self.model, "And then?", context=whole.context, options=GREEDY)
        self.assertEqual(again.context[: len(whole.context)], list(whole.context))

    def test_chat_and_generate_say_the_same(self):
        said = self.client.chat(self.model, HELLO, options=GREEDY).message.content
        self.assertEqual(self.client.generate(self.model, HELLO[0]["content"], options=GREEDY).response, said)

    def test_raw_prompts_are_written_out_by_hand(self):
        prompt = "<|im_start|>user\nWhat is Sconce?<|im_end|>\n<|im_start|>assistant\n"
        answer = self.client.generate(self.model, prompt, raw=True, options=GREEDY)
        self.assertTrue(answer.response)
        self.assertIsNone(answer.context)

    def test_seeds_and_limits(self):
        options = {"seed": 7, "temperature": 1, "num_predict": 8}
        one, two = (self.client.generate(self.model, "Tell me a story", options=options) for _ in range(2))
        self.assertEqual(one.response, two.response)
        self.assertLessEqual(one.eval_count, 8)
        # Every option that the client knows is taken, whether it means anything here or not.
        known = ollama.Options(
            numa=False, num_ctx=64, num_batch=8, num_gpu=0, main_gpu=0, low_vram=False, f16_kv=True, logits_all=False,
            vocab_only=False, use_mmap=True, use_mlock=False, embedding_only=False, num_thread=1, num_keep=4, seed=1,
            num_predict=2, top_k=10, top_p=0.5, tfs_z=1.0, typical_p=1.0, repeat_last_n=8, temperature=0.5,
            repeat_penalty=1.1, presence_penalty=0.1, frequency_penalty=0.1, mirostat=0, mirostat_tau=5.0,
            mirostat_eta=0.1, penalize_newline=True, stop=["\n\n"],
        )
        self.check_account(self.client.chat(self.model, HELLO, options=known, keep_alive="10m"))

    def test_stop(self):
        text = self.client.chat(self.model, HELLO, options=GREEDY).message.content
        stop = text.split()[2]
        cut = self.client.chat(self.model, HELLO, options=GREEDY | {"stop": [stop]})
        self.assertEqual((cut.message.content, cut.done_reason), (text[: text.index(stop)], "stop"))

    def test_formats(self):
        options = {"seed": 1, "num_predict": 200}
        schema = {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
            "required": ["name", "age"],
            "additionalProperties": False,
        }
        answer = json.loads(self.client.chat(self.model, HELLO, format=schema, options=options).message.content)
        self.assertEqual(sorted(answer), ["age", "name"])
        parts = self.client.generate(self.model, "Hello", format=schema, options=options, stream=True)
        self.assertEqual(sorted(json.loads("".join(part.response for part in parts))), ["age", "name"])
        any_json = self.client.chat(self.model, HELLO, format="json", options=GREEDY | {"num_predict": 1})
        self.assertTrue(any_json.message.content.lstrip().startswith("{"))

    def test_tools_are_taken(self):
        answer = self.client.chat(self.model, HELLO, tools=[add], options=GREEDY)
        self.assertTrue(answer.message.content or answer.message.tool_calls)
        call = ollama.Message.ToolCall(function=ollama.Message.ToolCall.Function(name="add", arguments={"a": 1, "b": 2}))
        messages = HELLO + [
            ollama.Message(role="assistant", content="", tool_calls=[call]),
            {"role": "tool", "content": "3", "tool_name": "add"},
        ]
        self.check_account(self.client.chat(self.model, messages, tools=[add], options=GREEDY))

    def test_logprobs(self):
        answer = self.client.chat(self.model, HELLO, logprobs=True, top_logprobs=3, options=GREEDY)
        self.assertEqual(len(answer.logprobs), answer.eval_count)
        for token in answer.logprobs:
            self.assertLessEqual(token.logprob, 0)
            self.assertEqual(len(token.top_logprobs), 3)
            self.assertEqual(token.top_logprobs[0].token, token.token)

    def test_models(self):
        listed = next(model for model in self.client.list().models if model.model == self.model)
        self.assertTrue(listed.model.endswith(":latest") and listed.size > 0)
        self.assertEqual(len(listed.digest), 64)
        for name in (self.model, self.model.removesuffix(":latest")):
            shown = self.client.show(name)
            self.assertIn("completion", shown.capabilities)
            self.assertIn("messages", shown.template)
            family = shown.modelinfo["general.architecture"]
            self.assertEqual(family, listed.details.family)
            self.assertGreater(shown.modelinfo[f"{family}.context_length"], 0)
        self.client.generate(self.model)
        running = next(model for model in self.client.ps().models if model.model == self.model)
        self.assertEqual((running.model, running.size_vram), (self.model, 0))
        self.assertGreater(running.expires_at, datetime.datetime.now(datetime.timezone.utc))
        self.assertGreater(running.context_length, 0)

    def test_load_requests(self):
        self.assertEqual(self.client.generate(self.model).done_reason, "load")
        self.assertEqual(self.client.chat(self.model).done_reason, "load")
        self.assertEqual(list(self.client.chat(self.model, stream=True))[0].done_reason, "load")

    def check_refused(self, status, words, ask):
        with self.assertRaises(ollama.ResponseError) as caught:
            ask()
        self.assertEqual(caught.exception.status_code, status)
        self.assertIn(words, caught.exception.error)

    def test_errors(self):
        chat = self.client.chat
        self.check_refused(404, "not found", lambda: chat("no-such-model", HELLO))
        self.check_refused(404, "not found", lambda: list(chat("no-such-model", HELLO, stream=True)))
        self.check_refused(404, "not found", lambda: self.client.show("no-such-model"))
        self.check_refused(400, "num_ctx", lambda: chat(self.model, HELLO, options={"num_ctx": 10**9}))
        self.check_refused(400, "temperature", lambda: chat(self.model, HELLO, options={"temperature": -1}))
        self.check_refused(400, "suffix", lambda: self.client.generate(self.model, "a", suffix="b"))
        self.check_refused(400, "template", lambda: self.client.generate(self.model, "a", template="{{ .Prompt }}"))
        self.check_refused(400, "format", lambda: chat(self.model, HELLO, format={"type": "nothing"}))
        image = {"role": "user", "content": "What is this?", "images": [b"\x89PNG"]}
        self.check_refused(400, "images", lambda: chat(self.model, [image]))
        for call in (self.client.pull, self.client.push, self.client.delete):
            self.check_refused(501, "not done", lambda: call("x"))
        self.check_refused(501, "not done", lambda: self.client.copy("x", "y"))
        self.check_refused(501, "not done", lambda: self.client.create("x", from_="y"))


if __name__ == "__main__":
    unittest.main()
