"""The group as its pods run it together: who leads, who follows, and the generations of ranks."""
