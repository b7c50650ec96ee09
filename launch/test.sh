#!/usr/bin/env bash
# Sets up .venv and runs the tests, two files at a time; arguments go to pytest.
#   launch/test.sh                       no PyTorch: parity is tested on stored goldens
#   launch/test.sh -n 0 -k FILTER        a few tests, in one process
#   EXTRAS=test,parity launch/test.sh    the PyTorch originals run live, too
# shellcheck source=launch/environment.sh
. "$(dirname "$0")/environment.sh"
make_environment "${EXTRAS:-test}"
# Files stay whole, for a file's tests share what they set up; in order, for short ones come last.
exec python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder "$@"
