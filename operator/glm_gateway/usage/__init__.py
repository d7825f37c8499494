"""What was used, by whom: a line a request, what they add up to, and how they leave the house. No text of anybody."""
