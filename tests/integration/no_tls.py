"""What a client of httpx is given as `verify` to ask a server of a test, which speaks plain HTTP on this machine."""

NO_TLS = False
"""Without it each new client, and each `httpx.get`, reads the machine's certificates first: 24 ms of a core."""
