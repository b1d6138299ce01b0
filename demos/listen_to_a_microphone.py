"""Live captions in ten lines: speak, read, end with Ctrl-C."""

import streamer

try:
    for event in streamer.listen():
        match event:
            case streamer.Partial(stable=stable, tentative=tentative):
                print(f"\r… {stable} {tentative}\x1b[K", end="", flush=True)
            case streamer.Final(text=text):
                print(f"\r{text}\x1b[K", flush=True)
            case streamer.Gap(reason=reason):
                print(f"\r(audio was lost: {reason})\x1b[K", flush=True)
except KeyboardInterrupt:
    print()
