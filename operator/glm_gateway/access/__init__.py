"""Who may ask: keys, tokens of an issuer, an external judge. Decided on the path that is served."""
