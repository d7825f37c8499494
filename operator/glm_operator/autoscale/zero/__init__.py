"""No group at all: what gateways are asked, when the last group goes and when the first one comes. Pure."""
