#!/bin/sh
# usage: setup.sh run|test
#
# Makes what `make run` and `make test` need: system packages, .venv, and streamer in it, at the
# versions in constraints.txt. Where all that is there, it takes a moment and no network.
# PYTHON in the environment chooses the Python.
set -eu
cd "$(dirname "$0")/.."

purpose=$1
venv=.venv
case $purpose in
    run)
        package=.
        system="libportaudio2"
        ;;
    test)
        package=".[dev]"
        system="libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins espeak-ng flite"
        # Text and a voice to train with.
        system="$system festival festvox-kdlpc16k wordnet-base bible-kjv"
        ;;
    *)
        echo "usage: $0 run|test" >&2
        exit 2
        ;;
esac

# Whether Python $1 is new enough and can do $2. It is run, because version managers leave
# commands behind that only say "not found".
usable() {
    "$1" -c "import sys; $2; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1
}

# The newest Python; one that can make virtual environments, if there is any (Debian splits that
# part off).
newest_python() {
    for need in "import venv, ensurepip" "pass"; do
        for python in python3.14 python3.13 python3.12 python3.11 python3 python; do
            usable "$python" "$need" && command -v "$python" && return
        done
    done
    return 1
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        usable "$PYTHON" pass && command -v "$PYTHON" && return
        echo "PYTHON=$PYTHON is not there or older than 3.11, which streamer needs." >&2
    else
        newest_python && return
        echo "streamer needs Python 3.11 or newer, and there is none on the PATH." >&2
        if command -v apt-get >/dev/null; then
            echo "Debian 12, Ubuntu 24.04 and newer: sudo apt-get install python3 python3-venv" >&2
        fi
        echo "If it lies elsewhere: make $purpose PYTHON=/path/to/python3" >&2
    fi
    exit 1
}

build() {
    "$1" -c "import sys; print(sys.base_prefix, sys.version)"
}

python=
[ -z "${PYTHON:-}" ] || python=$(choose_python)
if usable "$venv/bin/python" "import pip" &&
    { [ -z "$python" ] || [ "$(build "$python")" = "$(build "$venv/bin/python")" ]; }; then
    # Unquoted: a list.
    # shellcheck disable=SC2086
    scripts/system_packages.sh "$venv/bin/python" $system
else
    [ -n "$python" ] || python=$(choose_python)
    # shellcheck disable=SC2086
    scripts/system_packages.sh "$python" venv $system
    echo "Making $venv with $python"
    "$python" -m venv --clear "$venv"
fi

# The stamp holds the folder's name: after a move, the paths inside .venv lead nowhere.
installed() {
    [ "$(cat "$1" 2>/dev/null)" = "$PWD" ] &&
        [ ! pyproject.toml -nt "$1" ] && [ ! constraints.txt -nt "$1" ]
}

if ! installed "$venv/.installed-$purpose"; then
    echo "Installing streamer into $venv: torch makes this long the first time. CONTRIBUTING.md"
    echo "says how to get it without its gigabytes for NVIDIA GPUs."
    "$venv/bin/python" -m pip install --disable-pip-version-check -c constraints.txt -e "$package"
    echo "$PWD" >"$venv/.installed-run"
    echo "$PWD" >"$venv/.installed-$purpose"
fi
