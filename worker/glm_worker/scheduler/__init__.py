"""Which tokens to compute next, and in which KV blocks: pure state machines, no torch, no sockets, no clock."""
