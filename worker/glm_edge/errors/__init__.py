"""Errors in the words of each API. Pure."""
