"""How the embedded model was made, from text and recordings to weights, and rules were chosen.

text.py          sentences, and which of them are held out
synthesis.py     sentences → speech with phones, by flite, espeak-ng and festival
corpus.py        speech on disk: shards of samples and a table
prepare.py       the command that fills a corpus folder
batches.py       clips of about one length → arrays
network.py       the network and the heads that only training needs
live_windows.py  parts of clips, heard as live previews hear them
muon.py          the optimizer of the encoder's matrices
processes.py     one process to a core, each step together
train.py         the command that trains: resumable, logged, evaluated on the way
scoring.py       word and letter error rates of a checkpoint on the held-out sets
calibrate.py     what a checkpoint's confidence is worth
staying.py       which of a checkpoint's previewed words stay
export.py        a trained network → a checkpoint folder
export_onnx.py   the graph with which ONNX Runtime runs its weights
prose.py         books and speeches → sentences
ngram.py         sentences → a word n-gram model for `streamer --lm`
biasing.py       what such a model and hotwords gain
command.py       how these commands end where something is wrong
adapt_voice.py   what `streamer adapt` does for a voice: a table of docs/ctc.md
write_set.py     a held-out set as `streamer eval` reads it
writer_rules.py  what other rules of the default model would show
writer_biasing.py  what hotwords gain with the default model
cuts.py          what cuts of long talk do to the words beside them
cut_windows/     the adapter with which the default model writes previews
endpointing.py   what other hangovers would cost
second_opinion.py  what keeps noise from becoming words
noise.py         how many words noise becomes
"""
