"""pocketsphinx beside our policies: another engine, with its own words.

The decoder, model, dictionary and language model of the package `pocketsphinx`, with its defaults.
It hears the utterances that our voice detection finds, as they grow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from streamer.errors import SettingsError
from streamer.evaluation.baselines import Baseline
from streamer.evaluation.delays import TimedWord
from streamer.messages import SAMPLE_RATE

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.messages import Samples
    from streamer.recognition import Recognizer

FRAMES_A_SECOND = 100


class SphinxDecoder:
    """One stream's decoder, which gets used to what it hears.

    Raises:
        SettingsError: the package is not installed.
    """

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise SettingsError("pocketsphinx is not here: pip install pocketsphinx") from error
        self._decoder: Any = pocketsphinx.Decoder(
            samprate=SAMPLE_RATE, frate=FRAMES_A_SECOND, loglevel="FATAL"
        )

    def whole(self, samples: Samples) -> list[TimedWord]:
        """The words of a clip, shape (n,), heard in one piece.

        As it is: faint noise around it, which our networks need, costs this one words (40 clips of
        LibriSpeech test-other: WER 0.563 without, 0.589 with).
        """
        self.start()
        self.hear(samples, whole=True)
        self.end()
        return self.words()

    def start(self) -> None:
        """Begin an utterance."""
        self._decoder.start_utt()

    def hear(self, samples: Samples, *, whole: bool = False) -> None:
        """Take what follows of it, or the `whole` of it, shape (n,)."""
        if len(samples):
            pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
            self._decoder.process_raw(pcm.tobytes(), full_utt=whole)

    def end(self) -> None:
        """End it: the last and best look at its words."""
        self._decoder.end_utt()

    def words(self) -> list[TimedWord]:
        """Its words so far, in capitals, in seconds from its beginning."""
        if self._decoder.hyp() is None:
            return []
        return [
            TimedWord(
                part.word.split("(")[0].upper(),  # "on(2)": another way to say it
                part.start_frame / FRAMES_A_SECOND,
                (part.end_frame + 1) / FRAMES_A_SECOND,
            )
            for part in self._decoder.seg()
            if part.word[0] not in "<[+"  # silence and noises
        ]


class Pocketsphinx(Baseline):
    """Audio goes into the decoder at each step; all of its words may change until the end."""

    def __init__(
        self, recognizer: Recognizer, rate: int, settings: Settings, now: Callable[[], float]
    ) -> None:
        self._decoder = SphinxDecoder()
        super().__init__(recognizer, rate, settings, now)

    def begin(self) -> None:
        """Nothing of it has been heard."""
        self._heard = 0
        self._decoder.start()

    def hear(self, utterance: Samples) -> tuple[list[str], list[str]]:
        """The best hypothesis of the moment."""
        self._decoder.hear(utterance[self._heard :])
        self._heard = max(self._heard, len(utterance))
        return [], self._words(utterance)

    def close(self, utterance: Samples) -> list[str]:
        """The words of the finished utterance."""
        self._decoder.hear(utterance[self._heard :])
        self._decoder.end()
        return self._words(utterance)

    def _words(self, utterance: Samples) -> list[str]:
        """Where an utterance was split, steps before have heard words of the next one."""
        end = len(utterance) / SAMPLE_RATE
        return [word.text for word in self._decoder.words() if word.start < end]
