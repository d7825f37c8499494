"""What stands between a request and its groups: who asks, what it may take, what it took."""
