"""Which group gets a request: prefixes, load, weights, ejection, retries. Pure: time is an argument."""
