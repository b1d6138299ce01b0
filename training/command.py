"""How the commands of this folder end where something is wrong: with one line."""

from collections.abc import Callable

from streamer.errors import StreamerError


def run(main: Callable[[], None]) -> None:
    """Run a command; what its user can mend becomes a line on stderr, and exit code 1."""
    try:
        main()
    except UnicodeDecodeError as error:
        raise SystemExit("training: one of the files is no text in UTF-8") from error
    except OSError as error:
        raise SystemExit(f"training: {error.filename}: {error.strerror}") from error
    except StreamerError as error:
        raise SystemExit(f"training: {error}") from error
