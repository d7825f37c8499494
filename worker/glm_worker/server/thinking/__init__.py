"""Whether a request is answered with thinking, for how long, and who may read it. Pure: values in, values out."""
