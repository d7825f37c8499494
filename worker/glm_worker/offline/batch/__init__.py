"""`glm-worker batch`: requests in a file, answers in another, in OpenAI's batch format."""
