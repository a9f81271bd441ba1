// OpenAI's own client for JavaScript.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.SCONCE_URL}/v1`, apiKey: "none", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "Hello! Who are you?" }];
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city.",
    parameters: { type: "object", properties: { city: { enum: ["Paris", "Rome"] } }, required: ["city"], additionalProperties: false },
  },
};

test("a chat streams what it answers at once", async () => {
  const ask = { model, messages, temperature: 0, max_tokens: 32 };
  const whole = await client.chat.completions.create(ask);
  const stream = await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } });
  let text = "";
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("the stream helper puts a forced call together", async () => {
  const runner = client.chat.completions.stream({ model, messages, tools: [weather], tool_choice: "required", max_tokens: 256, seed: 1 });
  const message = await runner.finalMessage();
  const call = message.tool_calls[0];
  assert.equal(call.function.name, "get_weather");
  assert.ok(["Paris", "Rome"].includes(JSON.parse(call.function.arguments).city));
  assert.equal((await runner.finalChatCompletion()).choices[0].finish_reason, "tool_calls");
});

test("an answer follows its schema", async () => {
  const schema = { type: "object", properties: { n: { type: "integer", minimum: 1, maximum: 9 } }, required: ["n"], additionalProperties: false };
  const response_format = { type: "json_schema", json_schema: { name: "n", strict: true, schema } };
  const answer = await client.chat.completions.create({ model, messages, response_format, max_tokens: 64, seed: 2 });
  const { n } = JSON.parse(answer.choices[0].message.content);
  assert.ok(Number.isInteger(n) && n >= 1 && n <= 9);
});

test("completions", async () => {
  const answer = await client.completions.create({ model, prompt: ["Once", "Twice"], n: 2, max_tokens: 4, echo: true });
  assert.equal(answer.choices.length, 4);
  assert.ok(answer.choices[3].text.startsWith("Twice"));
});

test("errors are the client's own", async () => {
  await assert.rejects(client.chat.completions.create({ model: "none", messages }), (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
  await assert.rejects(client.chat.completions.create({ model, messages, top_p: 7 }), (error) => error instanceof OpenAI.BadRequestError && error.param === "top_p");
});
