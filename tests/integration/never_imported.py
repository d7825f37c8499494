"""A module whose import hangs, as on storage that does not answer."""

import threading

threading.Event().wait()
