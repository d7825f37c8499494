// The npm package openai: chat, stream, tools, its runner of tools, parse(), and responses.
//
// node openai_client.mjs http://127.0.0.1:8000 [--key KEY] [--limited KEY] [--only CASE,CASE]

import OpenAI from 'openai';
import { MODEL, OPTIONS, nearlyUsedUp, report, serverUrl } from './report.mjs';
import { CALCULATOR, QUESTION, WEATHER, calculator, getWeather } from './tools.mjs';

const url = await serverUrl();
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: OPTIONS.key, maxRetries: 0 });
const user = (content) => [{ role: 'user', content }];
const asFunction = ({ name, description, schema }) => ({ name, description, parameters: schema });
const PERSON = {
  type: 'object',
  properties: { name: { type: 'string' }, age: { type: 'integer' } },
  required: ['name', 'age'],
  additionalProperties: false,
};

async function chat() {
  const completion = await client.chat.completions.create({ model: MODEL, messages: user('What is 12+30?') });
  const { message } = completion.choices[0];
  return { text: message.content, reasoning: message.reasoning_content, tokens: completion.usage.completion_tokens };
}

async function chatWithoutThinking() {
  const messages = user('What is the capital of France?');
  const completion = await client.chat.completions.create({ model: MODEL, messages, reasoning_effort: 'none' });
  const { message } = completion.choices[0];
  return { text: message.content, reasoning: message.reasoning_content ?? null };
}

async function stream() {
  let [text, reasoning, numChunks, tokens] = ['', '', 0, null];
  const chunks = await client.chat.completions.create({
    model: MODEL,
    messages: user('What is 12+30?'),
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const chunk of chunks) {
    numChunks += 1;
    text += chunk.choices[0]?.delta.content ?? '';
    reasoning += chunk.choices[0]?.delta.reasoning_content ?? '';
    tokens = chunk.usage?.completion_tokens ?? tokens;
  }
  return { text, reasoning, num_chunks: numChunks, tokens };
}

async function tools() {
  const events = client.chat.completions.stream({
    model: MODEL,
    messages: user('What is the weather in Paris?'),
    tools: [{ type: 'function', function: asFunction(WEATHER) }],
  });
  const { message } = (await events.finalChatCompletion()).choices[0];
  const [call, ...more] = message.tool_calls;
  if (more.length) throw new Error(`${more.length} more calls than the one that was asked for`);
  return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
}

// The package's runner makes the calls itself; this one streams every turn.
async function loop() {
  const calls = [];
  const runnable = (tool, run) => ({
    type: 'function',
    function: {
      ...asFunction(tool),
      parse: JSON.parse,
      function: (input) => {
        calls.push([tool.name, input]);
        return run(input);
      },
    },
  });
  const runner = client.chat.completions.runTools({
    model: MODEL,
    messages: user(QUESTION),
    stream: true,
    tools: [runnable(WEATHER, getWeather), runnable(CALCULATOR, calculator)],
  });
  return { answer: await runner.finalContent(), calls };
}

async function parse() {
  const completion = await client.chat.completions.parse({
    model: MODEL,
    messages: user('Give me JSON with name "Ada" and age 36.'),
    response_format: { type: 'json_schema', json_schema: { name: 'person', schema: PERSON, strict: true } },
  });
  return JSON.parse(completion.choices[0].message.content);
}

async function responses() {
  const response = await client.responses.create({ model: MODEL, input: 'What is 12+30?' });
  return { text: response.output_text, tokens: response.usage.output_tokens };
}

async function responsesStream() {
  let [text, numChunks] = ['', 0];
  const events = client.responses.stream({ model: MODEL, input: 'What is 12+30?' });
  for await (const event of events) {
    numChunks += 1;
    if (event.type === 'response.output_text.delta') text += event.delta;
  }
  const response = await events.finalResponse();
  return { text, num_chunks: numChunks, tokens: response.usage.output_tokens };
}

const limited = { model: MODEL, messages: user('What is 12+30?'), max_tokens: 20 };

async function retried() {
  return nearlyUsedUp(url, 'retried', async (apiKey, passed) => {
    const completion = await client.withOptions({ apiKey, maxRetries: 2 }).chat.completions.create(limited);
    return { took_s: passed(), role: completion.choices[0].message.role };
  });
}

async function refused() {
  return nearlyUsedUp(url, 'refused', async (apiKey) => {
    try {
      await client.withOptions({ apiKey }).chat.completions.create(limited);
      return { status: 200 };
    } catch (error) {
      const { status, code } = error;
      return { status, code, class: error.constructor.name, retry_after: error.headers.get('retry-after') };
    }
  });
}

await report('openai', {
  chat,
  chat_without_thinking: chatWithoutThinking,
  stream,
  tools,
  loop,
  parse,
  responses,
  responses_stream: responsesStream,
  ...(OPTIONS.limited ? { retried, refused } : {}),
});
