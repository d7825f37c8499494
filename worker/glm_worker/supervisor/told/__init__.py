"""What the group was told by its owner, kept for every server to come: promises and the policy of requests."""
