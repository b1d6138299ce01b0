"""Voice detection: WebRTC's Gaussian mixtures, 16 kHz, frame by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import webrtcvad

from streamer.messages import SAMPLE_RATE

if TYPE_CHECKING:
    from streamer.messages import Samples


class VoiceDetector:
    """Says of each frame whether it is voice.

    It adapts to the noise it has heard, so it belongs to one session, and each frame is asked
    once, in order.
    """

    def __init__(self, mode: int, frame_ms: int) -> None:
        """Set the aggressiveness and the length of a frame.

        Args:
            mode: 0 (most is speech) to 3 (least).
            frame_ms: 10, 20 or 30.
        """
        self.frame_samples = SAMPLE_RATE * frame_ms // 1000
        self._vad = webrtcvad.Vad(mode)

    def __call__(self, frame: Samples) -> bool:
        """Decide on the next frame.

        Args:
            frame: shape (frame_samples,), at 16 kHz.
        """
        assert len(frame) == self.frame_samples, f"{len(frame)} samples, not {self.frame_samples}"
        pcm = np.clip(np.rint(frame * 32768.0), -32768, 32767).astype(np.int16)
        return bool(self._vad.is_speech(pcm.tobytes(), SAMPLE_RATE))
