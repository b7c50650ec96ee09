#!/usr/bin/env bash
# Sets up .venv and runs the main job on this machine; arguments are passed through.
#   launch/local.sh                                          the quick preset, minutes on 2 cores
#   launch/local.sh --config=configs/hematoma.py:smoke       seconds
#   EXTRAS=cuda launch/local.sh --config=configs/hematoma.py:paper     on a GPU (or EXTRAS=tpu)
# shellcheck source=launch/environment.sh
. "$(dirname "$0")/environment.sh"
make_environment "${EXTRAS:-ct}"
case " $* " in
  *' --config='* | *' --config '*) ;;
  *) set -- --config=configs/hematoma.py "$@" ;;
esac
exec python -m repdiff.main "$@"
