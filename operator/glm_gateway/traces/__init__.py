"""Single requests, told to the key that owns them, for a short while."""
