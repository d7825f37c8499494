"""What an answer must look like: from a request's words to a compiled grammar."""
