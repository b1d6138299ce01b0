"""From text and recordings to the arrays of a training step, with the real synthesizers."""

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest

from streamer.recognition.checkpoint_files import SEW_TINY_TOKENS
from training import corpus, synthesis
from training.batches import UNKNOWN, Batches, bucket
from training.corpus import Clip
from training.text import Text, bible, held_out, normalize, wordnet_examples

SENTENCE = "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG"


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("It's 'quoted', well-known — and over.", "IT'S QUOTED WELL KNOWN AND OVER"),
        ("[noise] Hello <unk> there (laughs)", "HELLO THERE"),
        ("don’t", "DON'T"),
        ("room 12", None),
        ("naïve", None),
        ("50% off", None),
        ("...", None),
        ("", None),
    ],
)
def test_text_is_brought_to_the_letters_of_the_vocabulary(written, spoken):
    assert normalize(written) == spoken


def test_a_sentence_is_held_out_in_every_run_or_in_none():
    code = f"from training.text import held_out; print(held_out({SENTENCE!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(held_out(SENTENCE))


def test_debians_texts_are_there():
    assert len(list(wordnet_examples())) > 40_000
    assert any("In the beginning God created" in verse for verse in bible())


def test_no_held_out_sentence_is_ever_drawn():
    sentences = [" ".join(pair) for pair in itertools.permutations(SENTENCE.split(), 3)]
    text = Text(extra=sentences)
    assert len(text.held_out) > 300
    assert all(held_out(sentence) for sentence in text.held_out)
    rng = random.Random(0)
    drawn = {text.draw(rng) for _ in range(3_000)}
    whole = set(text.held_out) | {s for s in sentences if held_out(normalize(s))}
    assert not drawn & {s for s in whole if len(s.split()) > 4}


def test_flite_says_where_each_phone_ends():
    said = synthesis.flite(SENTENCE, random.Random(0))
    assert said.voice in synthesis.FLITE_VOICES
    assert len(said.ends) == len(said.phones)
    assert list(said.ends) == sorted(said.ends)
    assert said.ends[-1] == pytest.approx(len(said.samples), abs=800)
    assert set(said.phones) <= set(synthesis.PHONES)
    # A pause is quiet, a vowel is loud: the marks are those of this sound.
    power = np.square(said.samples.astype(float))
    level = {"pau": [], "ow": []}
    for phone, start, end in zip(said.phones, (0, *said.ends), said.ends, strict=False):
        if phone in level:
            level[phone].append(power[start:end].mean())
    assert min(level["ow"]) > 100 * max(level["pau"])


def test_the_lexicon_gives_the_phones_of_any_text():
    expected = "pau hh ax l ow w er l d pau"
    assert " ".join(synthesis.phones_of("HELLO WORLD")) == expected


def test_espeak_speaks_in_many_voices_at_16_khz():
    said = [synthesis.espeak(SENTENCE, random.Random(number)) for number in range(12)]
    assert len({speech.voice for speech in said}) > 6
    for speech in said:
        assert 1.5 < len(speech.samples) / 16_000 < 8
        assert np.abs(speech.samples).max() > 3_000


def test_festival_speaks_in_the_voice_that_is_never_trained_on():
    first, second = synthesis.festival([SENTENCE, "HELLO"])
    assert first.voice == synthesis.UNHEARD_VOICE
    assert synthesis.UNHEARD_VOICE not in synthesis.FLITE_VOICES
    assert len(first.samples) > 3 * len(second.samples) > 3_000


def clips(count=40):
    rng = np.random.default_rng(0)
    return [
        Clip(
            rng.integers(-9_000, 9_000, 16_000 + 400 * number).astype(np.int16),
            "HELLO WORLD",
            "someone",
            ("pau", "hh", "ax", "l", "ow", "pau"),
            (2_000, 4_000, 6_000, 8_000, 14_000, 16_000) if number % 2 else None,
        )
        for number in range(count)
    ]


def test_a_shard_comes_back_as_it_was_written(tmp_path):
    written = clips(5)
    hours = corpus.write_shard(tmp_path, "some-000", written)
    assert hours == pytest.approx(sum(len(clip.samples) for clip in written) / 57_600_000)
    read = corpus.read_set(tmp_path, "some")
    assert len(read) == 5
    for before, after in zip(written, read, strict=True):
        assert np.array_equal(before.samples, after.samples)
        assert (before.text, before.voice) == (after.text, after.voice)
        assert (before.phones, before.ends) == (after.phones, after.ends)


def test_a_shard_that_was_interrupted_does_not_count(tmp_path):
    def broken():
        yield from clips(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.write_shard(tmp_path, "some-000", broken())
    assert not corpus.has_shard(tmp_path, "some-000")
    assert corpus.read_set(tmp_path, "some") == []


def test_batches_are_of_few_lengths_and_full_of_sound():
    batches = Batches({"a": clips()}, {"a": 1.0}, seconds=12, seed=0, augmentation=1.0)
    lengths = set()
    for batch in itertools.islice(batches, 30):
        rows, samples = batch.samples.shape
        lengths.add(samples)
        assert rows * samples / 16_000 == pytest.approx(12, rel=0.3)
        assert (samples - 80) % 640 == 0
        assert (batch.samples.std(1) > 0.5).all()
        assert len(batch.frames) == len(batch.letter_counts) == len(batch.phone_counts) == rows
        assert len(batch.letters) == batch.letter_counts.sum()
        text = "".join(SEW_TINY_TOKENS[number] for number in batch.letters[:11])
        assert text == "HELLO|WORLD"
        # The pauses at both ends are no phones to be found in the right order.
        assert batch.phone_counts.tolist() == [4] * rows
    assert len(lengths) <= 4


def test_a_marked_phone_moves_with_the_sound():
    # A clip that is silent but in one phone: there, and only there, the frames are so marked.
    samples = np.random.default_rng(0).integers(-9, 9, 32_000).astype(np.int16)
    samples[12_000:20_000] *= 1_000
    clip = Clip(samples, "OH", "x", ("pau", "ow", "pau"), (12_000, 20_000, 32_000))
    batches = Batches({"a": [clip]}, {"a": 1.0}, seconds=12, seed=1, augmentation=0.3)
    for batch in itertools.islice(batches, 10):
        assert (batch.phone_frames != UNKNOWN).all()
        for row, marks in zip(batch.samples.numpy(), batch.phone_frames.numpy(), strict=True):
            frames = row[: len(marks) * 640].reshape(len(marks), 640)
            loud = np.square(frames).mean(1) > 0.7
            marked = marks == synthesis.PHONES.index("ow")
            assert (loud != marked).sum() <= 3  # a room makes it last


def test_a_clip_fits_its_bucket_however_it_is_stretched():
    for samples in range(4_000, 256_000, 7_777):
        assert bucket(samples) >= samples * 1.13 + 7_200


def test_the_same_seed_gives_the_same_batches():
    def first(seed):
        batches = Batches({"a": clips()}, {"a": 1.0}, seconds=5, seed=seed, augmentation=1.0)
        return next(iter(batches)).samples

    assert first(1).equal(first(1))
    assert first(1).shape != first(2).shape or not first(1).equal(first(2))
