#!/bin/sh
# Makes streamer/demo/recording.flac: each line of recording.txt spoken by one of flite's voices,
# with pauses between the lines, over very faint noise. Needs flite and sox (with FLAC); the same
# versions of them make the same samples.
set -eu
cd "$(dirname "$0")/.."
text=streamer/demo/recording.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A voice for each line, and seconds after it. The voice's own silence adds about 0.4 s: pauses are
# longer than the 0.6 s that end an utterance. Lines, voices and pauses were searched for so that
# the embedded model hears all words: others cost it a letter here and there.
voices="slt slt rms rms awb slt slt rms rms"
pauses="0.73 0.76 0.78 0.83 0.76 0.82 0.53 0.67"
parts=
count=0
while IFS= read -r line; do
    count=$((count + 1))
    number=$(printf %02d "$count")
    voice=$(echo "$voices" | cut -d' ' -f "$count")
    pause=$(echo "$pauses 1.0" | cut -d' ' -f "$count")
    flite -voice "$voice" -t "$line" -o "$work/said.wav"
    # 0.7 s to begin with, so that the first word has audio before it; 1 s at the end.
    before=0
    [ "$count" -eq 1 ] && before=0.7
    sox -R "$work/said.wav" "$work/$number.wav" pad "$before" "$pause"
    parts="$parts $work/$number.wav"
done < "$text"

# Unquoted: one word a file, and mktemp's names have no blanks.
# shellcheck disable=SC2086
sox -R $parts "$work/speech.wav"
seconds=$(soxi -D "$work/speech.wav")
sox -R -n -r 16000 -c 1 -b 16 "$work/noise.wav" synth "$seconds" pinknoise gain -48
sox -R -m -v 1 "$work/speech.wav" -v 1 "$work/noise.wav" -b 16 -C 8 streamer/demo/recording.flac
soxi streamer/demo/recording.flac
