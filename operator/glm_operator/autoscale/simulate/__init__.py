"""A deployment that exists only as events: groups, a router, scrapes, and a law that scales it. Pure and seeded.

It answers what a law would have done with a trace, and what that would have cost. A law sees what Prometheus would
have shown it at that moment, faults included, and never the trace.
"""
