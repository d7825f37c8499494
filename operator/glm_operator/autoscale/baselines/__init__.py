"""Other people's laws, each in the words of its source and with its published defaults, to measure ours against. Pure.

Rewritten from descriptions; no code is taken over. Every law sees what Prometheus shows, also where the original
scrapes pods itself, and its own bounds on groups are those of the deployment.
"""
