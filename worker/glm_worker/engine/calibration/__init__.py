"""What one group of this model on this hardware can do: steps of a real engine, measured and put into a formula."""
