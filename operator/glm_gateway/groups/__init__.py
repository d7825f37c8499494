"""Which groups there are, where, and what they say of themselves."""
