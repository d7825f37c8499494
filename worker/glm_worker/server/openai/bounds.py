"""How large the parts of a request may be, and why: in this one place for all endpoints of the surface.

What a body is in bytes, items and depth is bounded before it is parsed (edge/); how long a prompt may be, by the model.
"""

MAX_ANSWERS = 16  # n: each is a sequence of its own in the batch
MAX_ALL_ANSWERS = 64  # n times prompts: as many as a busy group runs at once; more would starve everybody else
MAX_PROMPTS = MAX_ALL_ANSWERS
MAX_MESSAGES = 4096  # the longest loops of agents have hundreds
MAX_PARTS = 1024  # of one message: clients cut a text into a handful
MAX_CALLS = 512  # of one message: as many as there can be tools
MAX_TOOLS = 512  # OpenAI takes 128; agents with several servers of tools have more
MAX_STOP_STRINGS = 16  # OpenAI takes 4; each is looked for in the text of every token
MAX_STOP_CHARS = 1024  # as much text may be held back from a stream
MAX_STOP_TOKENS = 128  # a set that every token is looked up in
MAX_BAD_WORDS = 128  # each is compared with the end of the answer in every step
MAX_BAD_WORD_CHARS = 256
MAX_LOGIT_BIAS = 300  # as OpenAI; each is a write into the row of logits in every step
MAX_TOP_LOGPROBS = 20  # as OpenAI; each is an entry for every token of the answer
MAX_COMPLETION_LOGPROBS = 5  # as OpenAI's older endpoint
MAX_METADATA = 16  # pairs, as OpenAI; so are the next two
MAX_METADATA_KEY_CHARS = 64
MAX_METADATA_CHARS = 512
MAX_NAME_CHARS = 128  # of functions and of those who speak
MAX_ID_CHARS = 512  # of calls, and of what they called: as the clients of other servers have them
MAX_LABEL_CHARS = 512  # of users and keys of caches
MAX_CHOICES = 1000  # of a choice: each is a branch of the grammar, which takes as many
MAX_CHOICE_CHARS = 1024
MAX_REGEX_CHARS = 8192
MAX_DEADLINE_S = 86_400  # a day: longer than any answer
MAX_INT = 2**31 - 1  # counts of tokens, and priorities
