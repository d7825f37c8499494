"""What JSON schemas and patterns allow, read into shapes that a grammar can keep."""
