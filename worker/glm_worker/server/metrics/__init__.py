"""What the server measures, and the page that tells it."""
