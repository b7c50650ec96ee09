"""What a run writes down while it works: metrics.jsonl and TensorBoard events."""

import contextlib
import json
import math
import time
from pathlib import Path

from repdiff import cluster
from repdiff.files import write_atomic


class Logbook:
    """The scalars of one phase. Opening it at a step forgets lines of that phase after that step.

    So a run that was killed and resumed has each step once, as an uninterrupted one. Only the first
    process of a run writes.
    """

    def __init__(self, workdir: Path, phase: str, step: int):
        self._path, self._phase = Path(workdir) / 'metrics.jsonl', phase
        self._writes = cluster.is_first()
        if not self._writes:
            return
        kept = [line for line in read(workdir) if line['phase'] != phase or line['step'] <= step]
        write_atomic(self._path, ''.join(json.dumps(line) + '\n' for line in kept))
        # Loads PyTorch where there is one, for seconds that only a run that trains should wait.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        # Not its SummaryWriter: that writes in a thread, where a full disk is a traceback.
        directory = Path(workdir) / 'tensorboard' / phase
        directory.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(directory / 'events'))
        self._event, self._scalar = Event, scalar
        # From this step on, TensorBoard drops what an earlier try wrote.
        start = SessionLog(status=SessionLog.START)
        self._events.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def write(self, step: int, **scalars: float) -> None:
        """Adds one line {"phase", "step", ...}; a scalar that is not finite is written as null."""
        if not self._writes:
            return
        finite = {k: float(v) if math.isfinite(v) else None for k, v in scalars.items()}
        with open(self._path, 'a') as file:
            file.write(json.dumps({'phase': self._phase, 'step': step} | finite) + '\n')
        for name, value in scalars.items():
            self._events.write_event(self._event(
                wall_time=time.time(), step=step, summary=self._scalar(name, float(value))))
        self._events.flush()

    def __enter__(self) -> 'Logbook':
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        """Closes. Where an error is on its way, a disk that refuses the rest is not another one."""
        if self._writes:
            with contextlib.suppress(*[OSError] if error else []):
                self._events.close()


def read(workdir: Path) -> list[dict]:
    """All lines of metrics.jsonl; a last line torn by a kill is left out."""
    path, lines = Path(workdir) / 'metrics.jsonl', []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
