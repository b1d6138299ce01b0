"""An adapter that teaches Moonshine tiny to stop where the audio is cut: its recipe.

    python -m training.cut_windows.label SPEECH     clips → the model's own text, with word times
    python -m training.cut_windows.tune             windows of them → an adapter of the decoder
    python -m training.cut_windows.evaluate SPEECH  adapters side by side, on growing windows

An encoder-decoder that only ever heard whole sentences goes on where a window ends inside one: it
makes the rest up. The adapter is taught on windows cut anywhere, whose text is what the model
itself wrote of the whole clip, as far as it had been said. Each command goes on where it was
stopped or killed.
"""
