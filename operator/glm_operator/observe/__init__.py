"""What exists of a deployment, read into values: live objects, and what its workers say. Pure."""
