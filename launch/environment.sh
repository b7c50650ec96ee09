# shellcheck shell=bash
# Sourced by local.sh and test.sh: a virtual environment in .venv with repdiff and the named extras.
# PYTHON chooses the interpreter (3.11 or newer), VENV the directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

make_environment() {
  local extras=$1 venv=${VENV:-.venv} python=${PYTHON:-}
  if [ -z "$python" ]; then
    for python in python3 python3.13 python3.12 python3.11; do
      command -v "$python" >/dev/null &&
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
      python=
    done
  fi
  if [ -z "$python" ]; then
    echo 'repdiff: no Python 3.11 or newer found; install one or set PYTHON=/path/to/python.' >&2
    exit 2
  fi
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
  # shellcheck disable=SC1091
  . "$venv/bin/activate"
}
