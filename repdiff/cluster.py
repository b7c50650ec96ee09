"""The processes of one run, on one host or many: how they find each other and what they share.

Every process runs the same program. The first alone writes what people read; all wait for it.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import itertools
import os
import secrets
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec
from orbax.checkpoint import multihost

from repdiff import interrupt, progress
from repdiff.errors import UserError

PORT = 8476  # of the coordinator, where the scheduler names none
WAIT_S = 7 * 24 * 3600  # for the first process, which may prepare a large data set

T = TypeVar('T')
_barriers = itertools.count()


def start(coordinator: str, processes: int, process: int) -> None:
    """Joins this process to the run's others; alone where neither flags nor a scheduler name any.

    Before the first use of JAX. `coordinator` is HOST:PORT of process 0, of `processes`; this one
    is number `process`. Without it: SLURM (`srun`), Open MPI and TPUs, of Cloud TPU and GKE, as JAX
    detects them, and a GKE JobSet of GPU hosts by its variables (`of_jobset`). Raises UserError on
    flags that do not fit.
    """
    if coordinator:
        if ':' not in coordinator or not 0 <= process < processes:
            raise UserError(
                f'--coordinator={coordinator} --processes={processes} --process={process} do not '
                'fit; give HOST:PORT, the number of processes, and a number below it.'
            )
        given = {'coordinator_address': coordinator, 'num_processes': processes,
                 'process_id': process, 'cluster_detection_method': 'deactivate'}
    elif processes != 1 or process:
        raise UserError('--processes and --process need --coordinator=HOST:PORT of process 0.')
    elif found := of_jobset(os.environ):
        given = found
    elif scheduled(os.environ):
        given = {}
    else:
        return
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError, OSError) as error:  # OSError: TPU metadata out of reach
        reason = str(error).splitlines()[0]
        raise UserError(f'the processes did not find each other ({reason}); check that each can '
                        'reach the coordinator and that all were started.') from None
    if not is_first():
        progress.silence()
    of_first(np.int32(0))  # as `connect`, for what is shared beside the mesh


def connect(mesh: Mesh) -> None:
    """Brings together the devices that will exchange something, while all processes are here.

    On CPUs devices that meet for the first time wait 30 s for each other, later half an hour. So
    without this a run ends where one process reads or compiles that much longer than another.
    """
    if jax.process_count() == 1:
        return
    counts = range(1, len(mesh.axis_names) + 1)
    groups = [axes for count in counts for axes in itertools.combinations(mesh.axis_names, count)]

    def meet() -> list[jax.Array]:
        place = jax.lax.axis_index(mesh.axis_names)
        return [jax.lax.psum(place, axes)[None] for axes in groups]

    met = jax.shard_map(meet, mesh=mesh, in_specs=(), out_specs=PartitionSpec(mesh.axis_names))
    program = jax.jit(met).lower().compile()
    wait_for_all('connect')
    jax.block_until_ready(program())


def scheduled(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler that JAX can ask started this process: SLURM, Open MPI or one of TPUs."""
    names = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE', 'MEGASCALE_NUM_SLICES')
    if any(int(environment.get(name, '1')) > 1 for name in names):
        return True
    if hosts := environment.get('TPU_WORKER_HOSTNAMES'):  # of a slice, as GKE tells its pods
        return ',' in hosts
    # Elsewhere the TPU's own metadata tell. GKE sets this variable, too, and JAX sets it when it is
    # imported where there are no TPU chips.
    return bool(importlib.util.find_spec('libtpu')) and 'TPU_SKIP_MDS_QUERY' not in environment


def of_jobset(environment: Mapping[str, str]) -> dict[str, Any]:
    """What a JobSet of GPU hosts tells its pods, for `jax.distributed.initialize`; {} elsewhere.

    Kubernetes sets JOB_COMPLETION_INDEX; the manifest passes on JOBSET_NAME, REPLICATED_JOB_NAME
    and JOB_PARALLELISM. The first pod's name in the JobSet's own network is the coordinator.
    """
    names = ('JOBSET_NAME', 'REPLICATED_JOB_NAME', 'JOB_PARALLELISM', 'JOB_COMPLETION_INDEX')
    if any(name not in environment for name in names):
        return {}
    jobset, job, count, index = (environment[name] for name in names)
    return {
        'coordinator_address': f'{jobset}-{job}-0-0.{jobset}:{PORT}',
        'num_processes': int(count), 'process_id': int(index),
        'cluster_detection_method': 'deactivate',
    }


def is_first() -> bool:
    """Whether this process writes what people read."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Returns when every process has come here; `what` names the place in error messages."""
    if jax.process_count() > 1:
        multihost.get_barrier_sync_fn()(
            key=f'repdiff {next(_barriers)} {what}', timeout_ms=1000 * WAIT_S)


def of_first(tree: T) -> T:
    """The first process's arrays or numbers, of the same shapes in every process."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def first_then_rest(make: Callable[[], T], directory: str | os.PathLike) -> T:
    """make() in the first process, then in all others, who find what it leaves in `directory`.

    Where hosts do not share `directory`, each makes its own; the processes of one host take turns.
    Where make() stops at a signal (`interrupt.check`), all processes do.
    """
    if jax.process_count() == 1:
        return make()
    with _apart('made'):
        made = make() if is_first() else None
    with _apart('found'):
        if not is_first():
            directory = Path(directory).expanduser()
            directory.mkdir(parents=True, exist_ok=True)
            with open(directory / '.turn', 'w') as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                made = make()
    return made


@contextlib.contextmanager
def _apart(what: str) -> Iterator[None]:
    """In here the processes do different things; where one is interrupted, all are at the end."""
    with contextlib.suppress(interrupt.Interrupted):
        yield
    wait_for_all(what)
    interrupt.rejoin()


def check_same(text: str, message: str) -> None:
    """Raises UserError with `message` where `text` is not the first process's."""
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.int32)
    if not np.array_equal(digest, of_first(digest)):
        raise UserError(message)


def check_shared(directory: Path, what: str) -> None:
    """Raises UserError, in every process, where one does not see what the first writes there."""
    if jax.process_count() == 1:
        return
    token = directory / f'.shared-{of_first(np.int32(secrets.randbelow(2**31)))}'
    if is_first():
        token.touch()
    wait_for_all('token')
    seen = multihost_utils.process_allgather(np.int32(token.exists()))
    if is_first():
        token.unlink()
    wait_for_all('token gone')  # for who looks at what is in there
    if not seen.all():
        raise UserError(f'{what} {str(directory)!r} is not the same directory on every host '
                        f'(process {int(seen.argmin())} does not see what the first wrote); choose '
                        'one on a shared file system.')


@contextlib.contextmanager
def leave_together() -> Iterator[None]:
    """Ends this process at once on an error, for the others wait for it and are then ended too."""
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        if not jax.distributed.is_initialized() or code == os.EX_TEMPFAIL:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
