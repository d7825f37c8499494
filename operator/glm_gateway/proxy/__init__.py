"""Requests on their way to groups, and replies on their way back."""
