"""The HTTP server of a group's first pod: OpenAI's API in front, the engine of the current generation behind.

A process of its own that outlives generations. It imports neither torch nor transformers.
"""
