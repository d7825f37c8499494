"""OpenAI's responses: answers made of items, kept for as long as somebody wants to go on with them."""
