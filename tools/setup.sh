#!/bin/sh
# Make .venv and install the project into it with the extras that a target needs, each once.
#
#   sh tools/setup.sh lab test    called by the Makefile with the extras of pyproject.toml
#
# .venv/installed records what was installed (the files below, where the project stands, the
# extras); while it has all that is asked for, this script does nothing and needs no network. It
# is written last, so a set-up that was interrupted is taken up again by the next call.
#
#   PYTHON=python3.12   the interpreter to use (default: the first of python3, python3.1x that fits)
#   PIP_ARGS="..."      more arguments for pip install, for example an index with CPU builds of torch
set -eu
cd "$(dirname "$0")/.."

fail() { printf 'set-up: %s\n' "$1" >&2; exit 1; }
fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

stamp=".venv/installed"
state="$(cat pyproject.toml constraints.txt tools/setup.sh docs/explorer/package-lock.json | cksum) $(pwd -P)"
have=""
if [ -x .venv/bin/python ] && [ "$(sed -n 1p "$stamp" 2>/dev/null)" = "$state" ] && fits .venv/bin/python
then have="$(sed -n 2p "$stamp")"; fi

extras="$have"
for extra in "$@"; do
    case " $extras " in *" $extra "*) ;; *) extras="${extras:+$extras }$extra" ;; esac
done
if [ -n "$have" ] && [ "$extras" = "$have" ]; then exit 0; fi

if [ -z "$have" ]; then
    python=""
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if fits "$candidate"; then python="$candidate"; break; fi
    done
    [ -n "$python" ] || fail "Python 3.11 or newer is needed, and ${PYTHON:-python3} is $(${PYTHON:-python3} --version 2>&1 | tail -n 1 || true). Install one and call: make PYTHON=/path/to/python3.11 ..."
    "$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python has no venv module. Install it (on Debian and Ubuntu: apt install python3-venv) and call make again."
fi

printf 'set-up: installing %s into .venv, once; this takes some minutes (log: .venv/setup.log)\n' "$*" >&2
mkdir -p .venv
if [ -z "$have" ]; then
    "$python" -m venv .venv >.venv/setup.log 2>&1 || fail "could not make .venv: $(tail -n 1 .venv/setup.log)"
fi
# PIP_ARGS is meant to be split into words.
# shellcheck disable=SC2086
.venv/bin/python -m pip install --disable-pip-version-check --retries 2 ${PIP_ARGS:-} \
    -c constraints.txt -e ".[$(printf '%s' "$extras" | tr ' ' ',')]" >>.venv/setup.log 2>&1 || fail "pip could not install the packages. The first set-up needs a network (or PIP_ARGS='--no-index --find-links=DIR' with a folder of wheels); then call make again. Last error: $(grep -i '^ *error' .venv/setup.log | tail -n 1)"

# Two npm packages for the explorer of the site; without them it has a static example.
# It says itself what is missing, and a set-up without them is whole.
case " $* " in *" site "*) .venv/bin/python -m tools.explorer || : ;; esac

# JupyterLab asks its readers for news from the network, and looks for updates; here it does not.
mkdir -p .venv/share/jupyter/lab/settings
cat >.venv/share/jupyter/lab/settings/overrides.json <<'JSON'
{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}
JSON

printf '%s\n%s\n' "$state" "$extras" >"$stamp.new"
mv "$stamp.new" "$stamp"
