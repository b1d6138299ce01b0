"""Folders of speech with text: `streamer eval` measures with them, `streamer adapt` learns."""
