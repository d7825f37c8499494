"""HTTP/1.1 on our terms: what a head may be, how many connections there are, errors instead of plain text."""
