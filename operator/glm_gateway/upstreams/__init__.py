"""Other servers, outside, that speak the API of OpenAI: an arm of a name, or where requests overflow to."""
