"""Facts to what people read: conditions, groups, Events. Pure."""
