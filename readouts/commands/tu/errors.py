"""What goes wrong with data, said in one sentence."""

from __future__ import annotations


class DataError(RuntimeError):
    """A data set cannot be had or cannot be trusted; the message is one sentence for the user."""
