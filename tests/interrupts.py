"""Ctrl-C for programs that a test starts."""

import signal


def heed_interrupts():
    """Let a process and its children take SIGINT, which those that a shell runs in the background ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
