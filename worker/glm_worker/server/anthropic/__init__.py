"""The surface of Anthropic's messages, also under Z.ai's path for coding agents."""
