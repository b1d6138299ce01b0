# `make run` and `make test` need nothing but Python 3.11+ and make; they install the rest
# themselves, into .venv and, where they may, with apt-get. See `make help`.

.PHONY: run test bench soak lint format clean help setup-run setup-test
.NOTPARALLEL:

BIN := .venv/bin

run: setup-run
# Ctrl-C is how one stops: the shell waits for the last words, and no error is reported.
	@trap : INT; $(BIN)/streamer listen --or-demo $(ARGS) || [ $$? -eq 130 ]

test: lint
# Two at a time: much of what the tests do is wait for sound and for processes.
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

bench: setup-run
	$(BIN)/streamer bench $(ARGS)

soak: setup-run
	$(BIN)/streamer bench --minutes 10 $(ARGS)

lint: setup-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: setup-test
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean:
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@echo "make run     speak and read: installs what is missing, then listens to the microphone,"
	@echo "             or plays the demo recording where there is none; ARGS='--format text' …"
	@echo "make test    installs what is missing, then ruff, mypy and pytest"
	@echo "make bench   speed and memory on this machine"
	@echo "make soak    ten minutes live: cost and memory"
	@echo "make lint    ruff and mypy only        make format   let ruff rewrite the files"
	@echo "make clean   remove .venv and caches"
	@echo "PYTHON=/path/to/python3 chooses the Python; otherwise the newest one is taken."

setup-run setup-test: setup-%:
	@scripts/setup.sh $*
