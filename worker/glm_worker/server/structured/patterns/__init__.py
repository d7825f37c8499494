"""What texts a string may be: sets of characters, patterns of them, read from expressions and written for grammars."""
