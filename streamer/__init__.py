"""A real-time microphone transcriber. Speak, and read your words.

     microphone / file / pipe             sources/       threads and devices
            │  Block: samples at the device's own rate, with an absolute sample index
            ▼
     resample → utterances → Window       core/          pure: no I/O, no clock, no torch
            │
            ▼
     Window → Reading                     recognition/   ONNX Runtime; torch for other models
            │  the words of an encoder-decoder, the letters of a CTC network, or both
            ▼
     Hypothesis → Partial, Final, Gap     core/
            │
            ▼
     console, subtitles, journal          sinks/

The default model is two networks: an encoder-decoder writes the words, and a small CTC network
follows it, to time them and to tell speech from noise. A CTC model alone can do both.

What the command line does is a few lines of this:

    import streamer

    print(streamer.transcribe("talk.flac").text)

    with streamer.listen() as listener:
        for event in listener:                      # until listener.stop()
            if isinstance(event, streamer.Final):
                print(event.text)

    recognizer = streamer.load_recognizer()
    transcriber = streamer.Transcriber(recognizer, rate=48_000)
    events = transcriber.feed(samples)            # as often as there are some
    events += transcriber.finish()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from streamer.config import Settings as Settings
    from streamer.config import load_settings as load_settings
    from streamer.errors import DeviceError as DeviceError
    from streamer.errors import InputError as InputError
    from streamer.errors import ModelError as ModelError
    from streamer.errors import OutputError as OutputError
    from streamer.errors import SettingsError as SettingsError
    from streamer.errors import StreamerError as StreamerError
    from streamer.errors import StreamerWarning as StreamerWarning
    from streamer.live import Listener as Listener
    from streamer.live import Transcriber as Transcriber
    from streamer.live import listen as listen
    from streamer.messages import Block as Block
    from streamer.messages import Event as Event
    from streamer.messages import Final as Final
    from streamer.messages import Gap as Gap
    from streamer.messages import Partial as Partial
    from streamer.messages import SessionEnded as SessionEnded
    from streamer.messages import SessionStarted as SessionStarted
    from streamer.messages import Word as Word
    from streamer.recognition import load_recognizer as load_recognizer
    from streamer.transcripts import Transcript as Transcript
    from streamer.transcripts import transcribe as transcribe

# `import streamer` must be instant: torch, scipy and numpy are loaded by whoever needs them.
_HOMES = {
    "streamer.config": ("Settings", "load_settings"),
    "streamer.errors": (
        "DeviceError",
        "InputError",
        "ModelError",
        "OutputError",
        "SettingsError",
        "StreamerError",
        "StreamerWarning",
    ),
    "streamer.live": ("Listener", "Transcriber", "listen"),
    "streamer.messages": (
        "Block",
        "Event",
        "Final",
        "Gap",
        "Partial",
        "SessionEnded",
        "SessionStarted",
        "Word",
    ),
    "streamer.recognition": ("load_recognizer",),
    "streamer.transcripts": ("Transcript", "transcribe"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'streamer' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
