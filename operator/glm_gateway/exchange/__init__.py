"""One request of a client, from its head to the end of its reply."""
