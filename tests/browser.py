"""Chromium or Chrome without a window, for the tests of pages."""

import os
import queue
import shutil
import signal
import subprocess
from contextlib import suppress

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")
QUIET = ("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr")

needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome on the PATH")


def answer(folder, *arguments, until=None):
    """What a browser writes to its two outputs; one that does not end says nothing of the page.

    With `until`, a function that waits for an answer in a queue, the browser is ended after the answer.
    """
    command = [BROWSER, *OPTIONS, *QUIET, f"--user-data-dir={folder / 'profile'}", *arguments]
    outputs = folder / "dom.txt", folder / "log.txt"  # its children hold a pipe open when it is killed
    with outputs[0].open("wb") as dom, outputs[1].open("wb") as log:
        process = subprocess.Popen(command, stdout=dom, stderr=log, start_new_session=True)
        try:
            if until:
                until()
            else:
                process.wait(timeout=60)
        except (subprocess.TimeoutExpired, queue.Empty):
            pytest.skip(f"{command[0]} hangs")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return [output.read_text(errors="replace") for output in outputs]
