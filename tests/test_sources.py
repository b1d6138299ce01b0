from __future__ import annotations

import subprocess
import sys

MUTING = """
import os, random, sys, threading, time
from contextlib import ExitStack
from streamer.sources import muted_c_libraries, quiet_stderr

start = threading.Barrier(8)

def work(number):
    random.seed(number)
    start.wait()
    for _ in range(20):
        with quiet_stderr():
            os.write(2, b"hidden ")
            time.sleep(random.random() / 5_000)
            with quiet_stderr():
                os.write(2, b"hidden ")

with ExitStack() as stack:
    if sys.argv[1] == "inside":
        stack.enter_context(quiet_stderr())
        stack.enter_context(muted_c_libraries())
        print("python", file=sys.stderr)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    before = len(os.listdir("/dev/fd"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(os.listdir("/dev/fd")) == before
os.write(2, b"shown")
"""


def shown_by_many_threads(where: str) -> str:
    """What comes out of file descriptor 2 of a process whose threads mute it at once."""
    done = subprocess.run(
        [sys.executable, "-c", MUTING, where], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_many_threads_that_mute_standard_error_give_it_back() -> None:
    assert shown_by_many_threads("outside") == "shown"


def test_python_is_still_heard_while_c_libraries_are_muted_twice() -> None:
    assert shown_by_many_threads("inside") == "python\nshown"
