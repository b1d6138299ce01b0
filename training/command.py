"""How the commands of this folder end: where something is wrong with one line, when told to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamer.errors import ModelError, StreamerError
from streamer.recognition import load_recognizer

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.recognition.checkpoints import Checkpoint
    from streamer.recognition.ctc_recognizer import CtcRecognizer


def run(main: Callable[[], None]) -> None:
    """Run a command; what its user can mend becomes a line on stderr, and exit code 1."""
    try:
        main()
    except UnicodeDecodeError as error:
        raise SystemExit("training: one of the files is no text in UTF-8") from error
    except OSError as error:
        raise SystemExit(f"training: {error.filename}: {error.strerror}") from error
    except StreamerError as error:
        raise SystemExit(f"training: {error}") from error


def load_ctc(settings: Settings, checkpoint: Checkpoint | None = None) -> CtcRecognizer:
    """A CTC model.

    Raises:
        ModelError: it is of another kind, or not available.
    """
    from streamer.recognition.ctc_recognizer import CtcRecognizer

    recognizer = load_recognizer(settings, checkpoint=checkpoint)
    if not isinstance(recognizer, CtcRecognizer):
        raise ModelError(f"{recognizer.name} is no CTC model; give one, such as embedded-sew")
    return recognizer


@contextmanager
def told_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the step at hand is finished and saved."""
    stopping = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopping.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
