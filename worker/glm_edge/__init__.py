"""The edge between HTTP and us, which workers and gateways share: what is read, what is refused, what they say."""
