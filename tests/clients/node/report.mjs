// What a client's script prints: one JSON object, with what came of each of its cases.

import { readFile } from 'node:fs/promises';

export const MODEL = 'glm-nano';

const START_LIMIT_MS = 200_000;

// The address of the server, the script's only argument (http://host:port), once it serves.
export async function serverUrl() {
  const [argument] = process.argv.slice(2);
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

// Run the cases one after the other. One that fails says so under its name, and the others go on.
export async function report(packageName, cases) {
  const results = {};
  for (const [name, run] of Object.entries(cases)) {
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
