#!/bin/sh
# Make .venv and install the project into it, once. Called by every target of the Makefile.
#
# A stamp in .venv records what was installed (the files below, and where the project stands);
# while it matches, this script does nothing and needs no network. The stamp is written last, so
# a set-up that was interrupted is taken up again by the next call.
#
#   PYTHON=python3.12   the interpreter to use (default: the first of python3, python3.1x that fits)
#   PIP_ARGS="..."      more arguments for pip install, for example an index with CPU builds of torch
set -eu
cd "$(dirname "$0")/.."

fail() { printf 'set-up: %s\n' "$1" >&2; exit 1; }
fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

stamp=".venv/installed"
state="$(cat pyproject.toml constraints.txt tools/setup.sh docs/explorer/package-lock.json | cksum) $(pwd -P)"
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$state" ] && fits .venv/bin/python
then exit 0; fi

python=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if fits "$candidate"; then python="$candidate"; break; fi
done
[ -n "$python" ] || fail "Python 3.11 or newer is needed, and ${PYTHON:-python3} is $(${PYTHON:-python3} --version 2>&1 | tail -n 1 || true). Install one and call: make PYTHON=/path/to/python3.11 ..."
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python has no venv module. Install it (on Debian and Ubuntu: apt install python3-venv) and call make again."

printf 'set-up: installing into .venv, once; this takes some minutes (log: .venv/setup.log)\n' >&2
mkdir -p .venv
"$python" -m venv .venv >.venv/setup.log 2>&1 || fail "could not make .venv: $(tail -n 1 .venv/setup.log)"
# PIP_ARGS is meant to be split into words.
# shellcheck disable=SC2086
.venv/bin/python -m pip install --disable-pip-version-check --retries 2 ${PIP_ARGS:-} \
    -c constraints.txt -e '.[lab,test,lint,site]' >>.venv/setup.log 2>&1 || fail "pip could not install the packages. The first set-up needs a network (or PIP_ARGS='--no-index --find-links=DIR' with a folder of wheels); then call make again. Last error: $(grep -i '^ *error' .venv/setup.log | tail -n 1)"

# Two npm packages for the explorer of the site; without them it has a static example.
# It says itself what is missing, and a set-up without them is whole.
.venv/bin/python tools/explorer.py || :

# JupyterLab asks its readers for news from the network, and looks for updates; here it does not.
mkdir -p .venv/share/jupyter/lab/settings
cat >.venv/share/jupyter/lab/settings/overrides.json <<'JSON'
{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}
JSON

printf '%s' "$state" >"$stamp.new"
mv "$stamp.new" "$stamp"
