"""Counters in Valkey or Redis, for all replicas of a gateway together, and what is done while it is gone."""
