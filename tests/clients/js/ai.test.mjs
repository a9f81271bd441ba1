// Vercel's AI SDK, by its provider for servers that speak OpenAI's API.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = `${process.env.SCONCE_URL}/v1`;
const name = (await (await fetch(`${baseURL}/models`)).json()).data[0].id;
const model = createOpenAICompatible({ name: "sconce", baseURL, includeUsage: true, supportsStructuredOutputs: true })(name);
const prompt = "Hello! Who are you?";

test("text streams as it is told at once", async () => {
  const ask = { model, prompt, temperature: 0, maxOutputTokens: 32, maxRetries: 0 };
  const whole = await generateText(ask);
  const stream = streamText(ask);
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  assert.equal(text, whole.text);
  assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
  assert.ok(whole.usage.inputTokens > 0);
});

test("a tool is called", async () => {
  const city = z.object({ city: z.enum(["Paris", "Rome"]) });
  const tools = { weather: tool({ description: "The weather in a city.", inputSchema: city }) };
  const answer = await generateText({ model, prompt, tools, toolChoice: "required", maxOutputTokens: 256, seed: 1, maxRetries: 0 });
  assert.equal(answer.toolCalls[0].toolName, "weather");
  assert.ok(["Paris", "Rome"].includes(answer.toolCalls[0].input.city));
  assert.equal(answer.finishReason, "tool-calls");
});

test("an object follows its schema", async () => {
  const schema = z.object({ n: z.number().int().min(1).max(9) });
  const answer = await generateObject({ model, prompt, schema, maxOutputTokens: 64, seed: 2, maxRetries: 0 });
  assert.ok(answer.object.n >= 1 && answer.object.n <= 9);
});
