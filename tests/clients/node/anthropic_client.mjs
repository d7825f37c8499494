// The npm package @anthropic-ai/sdk: messages, stream, tools, counted tokens, and its runner of tools.
//
// node anthropic_client.mjs http://127.0.0.1:8000 [--key KEY] [--limited KEY] [--only CASE,CASE]

import Anthropic from '@anthropic-ai/sdk';
import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema';
import { MODEL, OPTIONS, nearlyUsedUp, report, serverUrl } from './report.mjs';
import { CALCULATOR, QUESTION, WEATHER, calculator, getWeather } from './tools.mjs';

const url = await serverUrl();
const client = new Anthropic({ baseURL: url, apiKey: OPTIONS.key, maxRetries: 0 });
const user = (content) => [{ role: 'user', content }];
const asked = { model: MODEL, max_tokens: 300 };

function facts(message) {
  const textOf = (type, field) => message.content.flatMap((block) => (block.type === type ? block[field] : [])).join('');
  return { text: textOf('text', 'text'), reasoning: textOf('thinking', 'thinking'), tokens: message.usage.output_tokens };
}

async function chat() {
  return facts(await client.messages.create({ ...asked, messages: user('What is 12+30?') }));
}

async function chatWithoutThinking() {
  const messages = user('What is the capital of France?');
  return facts(await client.messages.create({ ...asked, messages, thinking: { type: 'disabled' } }));
}

async function stream() {
  let numChunks = 0;
  const events = client.messages.stream({ ...asked, messages: user('What is 12+30?') });
  for await (const _ of events) numChunks += 1;
  return { ...facts(await events.finalMessage()), num_chunks: numChunks };
}

async function tools() {
  const { name, description, schema } = WEATHER;
  const message = await client.messages
    .stream({
      ...asked,
      messages: user('What is the weather in Paris?'),
      tools: [{ name, description, input_schema: schema }],
    })
    .finalMessage();
  const [call, ...more] = message.content.filter((block) => block.type === 'tool_use');
  if (more.length) throw new Error(`${more.length} more calls than the one that was asked for`);
  return { name: call.name, arguments: call.input };
}

async function loop() {
  const calls = [];
  const runnable = ({ name, description, schema }, run) =>
    betaTool({
      name,
      description,
      inputSchema: schema,
      run: (input) => {
        calls.push([name, input]);
        return run(input);
      },
    });
  const runner = client.beta.messages.toolRunner({
    ...asked,
    messages: user(QUESTION),
    tools: [runnable(WEATHER, getWeather), runnable(CALCULATOR, calculator)],
    max_iterations: 6,
  });
  return { answer: facts(await runner.runUntilDone()).text, calls };
}

async function countTokens() {
  const messages = user('What is 12+30?');
  const counted = await client.messages.countTokens({ model: MODEL, messages });
  const message = await client.messages.create({ ...asked, max_tokens: 1, messages });
  return { counted: counted.input_tokens, billed: message.usage.input_tokens + (message.usage.cache_read_input_tokens ?? 0) };
}

const limited = { model: MODEL, messages: user('What is 12+30?'), max_tokens: 20 };

async function retried() {
  return nearlyUsedUp(url, 'retried', async (apiKey, passed) => {
    const message = await client.withOptions({ apiKey, maxRetries: 2 }).messages.create(limited);
    return { took_s: passed(), role: message.role };
  });
}

async function refused() {
  return nearlyUsedUp(url, 'refused', async (apiKey) => {
    try {
      await client.withOptions({ apiKey }).messages.create(limited);
      return { status: 200 };
    } catch (error) {
      const { status, type, requestID } = error;
      const retryAfter = error.headers.get('retry-after');
      return { status, type, class: error.constructor.name, retry_after: retryAfter, has_id: Boolean(requestID) };
    }
  });
}

await report('@anthropic-ai/sdk', {
  chat,
  chat_without_thinking: chatWithoutThinking,
  stream,
  tools,
  loop,
  count_tokens: countTokens,
  ...(OPTIONS.limited ? { retried, refused } : {}),
});
