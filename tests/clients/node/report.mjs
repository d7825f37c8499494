// What a client's script prints: one JSON object, with what came of each of its cases.

// Before a gateway a script gets a key, and others whose limits it is to run into.

import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';

export const MODEL = 'glm-nano';

const START_LIMIT_MS = 200_000;

// Of the model whose requests get a head and never a word; tokens of answers a minute, for each limited key.
const [STALLED, LIMITED_TO] = ['stalled', 600];

const text = (fallback) => ({ type: 'string', ...(fallback === undefined ? {} : { default: fallback }) });
export const { values: OPTIONS, positionals } = parseArgs({
  allowPositionals: true,
  options: { key: text('none'), limited: text(), only: text() },
});

// The address of the server, the script's only argument (http://host:port), once it serves.
export async function serverUrl() {
  const [argument] = positionals;
  if (!argument) throw new Error('give the address of the server, as http://127.0.0.1:8000');
  const url = argument.replace(/\/$/, '');
  const deadline = Date.now() + START_LIMIT_MS;
  for (;;) {
    try {
      if ((await fetch(`${url}/health`)).ok) return url;
      if (Date.now() > deadline) throw new Error(`${url} does not serve`);
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

// Call with the key of a case whose limits it runs into, while a request of another model, which does not end, has all
// that the key may have. The call also gets what returns the seconds since that was asked: twenty tokens more are there
// after two.
export async function nearlyUsedUp(url, name, call) {
  const [key, ending, asked] = [`${OPTIONS.limited}-${name}`, new AbortController(), performance.now()];
  const taken = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: STALLED, prompt: '1', max_tokens: LIMITED_TO, stream: true }),
    signal: ending.signal,
  });
  if (!taken.ok) throw new Error(`${taken.status} for what was to use up all of ${key}`);
  try {
    return await call(key, () => (performance.now() - asked) / 1000);
  } finally {
    ending.abort();
  }
}

// Run the cases one after the other. One that fails says so under its name, and the others go on.
export async function report(packageName, cases) {
  const results = {};
  const only = OPTIONS.only?.split(',');
  for (const [name, run] of Object.entries(cases)) {
    if (only && !only.includes(name)) continue;
    try {
      results[name] = await run();
    } catch (error) {
      results[name] = { failed: String(error?.stack ?? error) };
    }
  }
  const manifest = new URL(`node_modules/${packageName}/package.json`, import.meta.url);
  const { version } = JSON.parse(await readFile(manifest, 'utf8'));
  console.log(JSON.stringify({ version, cases: results }));
}
