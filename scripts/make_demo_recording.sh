#!/bin/sh
# Makes streamer/demo/recording.flac: each line of recording.txt spoken by flite's voice slt, with
# pauses between the lines, over very faint noise. Needs flite and sox (with FLAC); the same
# versions of them make the same samples.
set -eu
cd "$(dirname "$0")/.."
text=streamer/demo/recording.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Seconds after each line. The voice's own silence adds about 0.4 s: pauses are 0.9 to 1.1 s, longer
# than the 0.6 s that end an utterance. These lengths were searched for, with recording.txt, so that
# the embedded model hears all words: another set of pauses costs it a letter here and there.
pauses="0.59 0.75 0.68 0.67 0.69 0.55 0.57"
set -- $pauses
count=0
parts=
while IFS= read -r line; do
    count=$((count + 1))
    number=$(printf %02d "$count")
    flite -voice slt -t "$line" -o "$work/said.wav"
    # 0.7 s to begin with, so that the first word has audio before it; 1 s at the end.
    before=0
    [ "$count" -eq 1 ] && before=0.7
    sox -R "$work/said.wav" "$work/$number.wav" pad "$before" "${1:-1.0}"
    [ $# -gt 0 ] && shift
    parts="$parts $work/$number.wav"
done < "$text"

# Unquoted: one word a file, and mktemp's names have no blanks.
# shellcheck disable=SC2086
sox -R $parts "$work/speech.wav"
seconds=$(soxi -D "$work/speech.wav")
sox -R -n -r 16000 -c 1 -b 16 "$work/noise.wav" synth "$seconds" pinknoise gain -48
sox -R -m -v 1 "$work/speech.wav" -v 1 "$work/noise.wav" -b 16 -C 8 streamer/demo/recording.flac
soxi streamer/demo/recording.flac
