"""The engine in a program of one's own: for notebooks, and for batches of requests in files."""
