"""What is no generation: models, tokens, health, version."""
