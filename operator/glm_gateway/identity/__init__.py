"""Others who say who a caller is, asked over HTTP: the issuer of tokens, an external judge."""
