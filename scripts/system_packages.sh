#!/bin/sh
# usage: system_packages.sh PYTHON PACKAGE...
#
# Sees to what pip cannot install: packages by their Debian names, or `venv` for the part of
# PYTHON that makes virtual environments. Root on Debian and its children gets them installed,
# anyone else is told what to type. Only a missing `venv` is an error: streamer and its tests say
# themselves what they go without.
set -eu

python=$1
shift

program() { command -v "$1" >/dev/null; }

# Asked for what it offers, so it counts however it was installed.
present() {
    case $1 in
        venv) "$python" -c "import venv, ensurepip" 2>/dev/null ;;
        libportaudio2)
            "$python" -c \
                "import sys, ctypes.util; sys.exit(not ctypes.util.find_library('portaudio'))"
            ;;
        libasound2-plugins)
            for file in /usr/lib*/alsa-lib/libasound_module_pcm_pulse.so \
                /usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so; do
                [ -e "$file" ] && return
            done
            return 1
            ;;
        pulseaudio-utils) program pactl && program pacat ;;
        festvox-kdlpc16k) [ -d /usr/share/festival/voices/english/ked_diphone ] ;;
        wordnet-base) [ -e /usr/share/wordnet/data.noun ] ;;
        bible-kjv) program bible ;;
        *) program "$1" ;;
    esac
}

missing=
needs_venv=
for package; do
    present "$package" && continue
    if [ "$package" = venv ]; then
        needs_venv=yes
        # The one for this very Python; python3-venv may belong to another.
        package=$("$python" -c "import sys; print('python3.%d-venv' % sys.version_info[1])")
    fi
    missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! program apt-get; then
    echo "These system packages are missing (by their Debian names):$missing" >&2
elif [ "$(id -u)" -ne 0 ]; then
    echo "Some system packages are missing. To install them, type:" >&2
    echo "    sudo apt-get install$missing" >&2
else
    echo "Installing system packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # A machine that has just started may hold dpkg's lock for a while.
    options="-q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3"
    # Unquoted: lists.
    # shellcheck disable=SC2086
    { apt-get $options update && apt-get $options install -y --no-install-recommends $missing; } ||
        echo "apt-get could not install them:$missing" >&2
fi

if [ -n "$needs_venv" ] && ! present venv; then
    echo "Until then, $python cannot make the virtual environment that streamer lives in." >&2
    exit 1
fi
