"""The surface of OpenAI: chat and text completions, and Z.ai's dialect of chats."""
