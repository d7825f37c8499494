"""Requests in flight: between the connections of clients and the engine of the generation that serves."""
