"""One form of what clients want, whatever surface they use, and the jobs for the engine that come of it."""
