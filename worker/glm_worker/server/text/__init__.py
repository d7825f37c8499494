"""Text to tokens and back: template, tokenizer, and the grammar of what GLM models write. Pure: no I/O, any thread."""
