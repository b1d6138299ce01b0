"""What `streamer bench` measures against, on the real networks."""

import pytest
from conftest import RECORDING

from streamer.core.ctc import decode
from streamer.recognition import resolve
from streamer.recognition.checkpoints import Checkpoint
from streamer.recognition.flops import (
    WINDOW_S,
    chunked_pipeline,
    gflop_per_second_of_audio,
    matrix_gflop_per_second,
)
from streamer.recognition.random_model import write_random_sew_tiny
from streamer.sources.files import read_audio


def test_the_arithmetic_of_sew_tiny_is_counted_whole(tmp_path):
    write_random_sew_tiny(tmp_path)
    # By hand: of each layer four matrices of attention and two of the feed-forward, 25 times a
    # second; its scores and sums over a window's frames; and the upsampling to 50 frames.
    layers, width, inner, frames = 12, 512, 2_048, 25
    matrices = layers * (4 * width**2 + 2 * width * inner) * frames
    attention = layers * 2 * width * frames * WINDOW_S * frames
    upsampling = width * 2 * width * frames
    encoder = 2 * (matrices + attention + upsampling) / 1e9
    counted = gflop_per_second_of_audio(Checkpoint(tmp_path, "random"))
    convolutions = counted - encoder
    assert 0.6 < convolutions < 0.8
    assert counted == pytest.approx(2.75, abs=0.05)


def test_a_smaller_network_asks_for_less():
    assert 0.1 < gflop_per_second_of_audio(resolve("embedded-sew")) < 1.5


def test_the_machine_multiplies():
    assert matrix_gflop_per_second("cpu", 1) > 0.1


def test_the_pipeline_hears_the_same_weights(recognizer):
    samples, _ = read_audio(RECORDING)
    samples = samples[: recognizer.grid.fit(8 * 16_000)]
    transcribe = chunked_pipeline(resolve("embedded-sew"), "cpu", 1, chunk_s=10, stride_s=10 / 6)
    words = decode(recognizer.log_probs(samples), recognizer.vocabulary)
    assert transcribe(samples, 1) == " ".join(word.text for word in words)


def test_several_chunks_to_a_batch_say_much_the_same():
    samples, _ = read_audio(RECORDING)
    transcribe = chunked_pipeline(resolve("embedded-sew"), "cpu", 1, chunk_s=5, stride_s=5 / 6)
    one, four = (transcribe(samples, batch).split() for batch in (1, 4))
    assert len(one) > 30
    assert len(set(one) & set(four)) > 0.8 * len(set(one))
