"""The names that clients ask for: the groups behind each, who waits for them, what is tried again."""
