"""What the gateway tells itself, without a group: which models there are, who used what, how its API looks."""
