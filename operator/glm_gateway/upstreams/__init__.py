"""Servers outside that speak OpenAI's API: how a request looks there, and what their replies say."""
