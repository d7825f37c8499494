"""How few and how many groups there may be: the spec, budgets, a quota, and schedules. Pure."""
