"""Logits to tokens, on rank 0 only. What a request asks of its next token, one idea a file; the order: sampler.py."""
