"""Speech that is not the user's: what shows whether a model forgets other voices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from streamer.adaptation.augmentation import at_speed
from streamer.corpora.examples import Example, find_examples

_DEMO = Path(__file__).parent.parent / "demo"
SPEEDS = (0.87, 1.0, 1.15)
"""Of one reader. Pitch and formants move with the speed, so these are three voices to a model."""


def other_voices() -> list[Example]:
    """The bundled recording, at each of `SPEEDS`."""
    (reader,) = find_examples([_DEMO]).examples
    return [replace(reader, samples=at_speed(reader.samples, speed)) for speed in SPEEDS]
