"""What can go wrong, each with the exit code that the command line returns.

    StreamerError
    ├── SettingsError    2   a flag, environment variable or line of the settings file
    ├── DeviceError      3   no microphone, an unknown or ambiguous one, one that refuses or dies
    ├── ModelError       4   a model that is missing, damaged or of another kind
    ├── InputError       5   a file or stream that is no readable audio
    └── OutputError      1   a terminal, file or pipe that takes no more text

The message is one line that says what happened and what to do about it.
"""

from __future__ import annotations


class StreamerError(Exception):
    """Base of every error that `streamer` raises on purpose."""

    exit_code = 1


class StreamerWarning(UserWarning):
    """Something was left out or replaced, and the work goes on."""


class SettingsError(StreamerError):
    """A setting has no such name or no such value."""

    exit_code = 2


class DeviceError(StreamerError):
    """There is no such audio device, or it does not deliver audio."""

    exit_code = 3


class ModelError(StreamerError):
    """The model is not available, damaged, or of a kind that cannot be used."""

    exit_code = 4


class InputError(StreamerError):
    """The audio input cannot be read."""

    exit_code = 5


class OutputError(StreamerError):
    """Text cannot be written where it was to go."""
