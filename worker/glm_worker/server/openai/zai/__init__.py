"""Z.ai's chat completions: a dialect of OpenAI's, with names, errors and the end of streams of its own."""
