"""Live captions in a few lines: speak, read, end with Ctrl-C, which finishes the last words."""

import signal

import streamer

with streamer.listen(streamer.load_settings()) as listener:
    signal.signal(signal.SIGINT, lambda *_: listener.stop())
    for event in listener:
        match event:
            case streamer.Partial(stable=stable, tentative=tentative):
                print(f"\r… {stable} {tentative}\x1b[K", end="", flush=True)
            case streamer.Final(text=text):
                print(f"\r{text}\x1b[K", flush=True)
            case streamer.Gap(reason=reason):
                print(f"\r(audio was lost: {reason})\x1b[K", flush=True)
