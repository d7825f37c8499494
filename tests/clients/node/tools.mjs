// The two tools of the clients' agent loops, and what the loops are asked.

export const QUESTION = 'What is 17+25 plus the temperature in Paris?';

const TEMPERATURES = new Map([['Paris', 21]]);

export function getWeather({ city }) {
  if (!TEMPERATURES.has(city)) return JSON.stringify({ error: `no weather is known of ${city}` });
  return JSON.stringify({ city, temperature: TEMPERATURES.get(city), condition: 'sunny' });
}

// The value of a sum: numbers with + and - between them, nothing else.
export function calculator({ expression }) {
  if (!/^\s*-?\d+(\.\d+)?(\s*[+-]\s*\d+(\.\d+)?)*\s*$/.test(expression)) {
    return JSON.stringify({ error: `${expression} is no sum of numbers` });
  }
  const terms = expression.replaceAll(/\s/g, '').match(/[+-]?\d+(\.\d+)?/g);
  return JSON.stringify({ result: terms.reduce((sum, term) => sum + Number(term), 0) });
}

export const WEATHER = {
  name: 'get_weather',
  description: 'Get the current weather for a city.',
  schema: {
    type: 'object',
    properties: { city: { type: 'string', description: 'The city' } },
    required: ['city'],
    additionalProperties: false,
  },
};

export const CALCULATOR = {
  name: 'calculator',
  description: 'Calculate an arithmetic expression.',
  schema: {
    type: 'object',
    properties: { expression: { type: 'string', description: 'The expression to calculate' } },
    required: ['expression'],
    additionalProperties: false,
  },
};
