#!/usr/bin/env bash
# Sets up .venv and runs the tests; arguments go to pytest.
#   launch/test.sh                       no PyTorch: parity is tested on stored goldens
#   EXTRAS=test,parity launch/test.sh    the PyTorch originals run live, too
# shellcheck source=launch/environment.sh
. "$(dirname "$0")/environment.sh"
make_environment "${EXTRAS:-test}"
exec python -m pytest "$@"
