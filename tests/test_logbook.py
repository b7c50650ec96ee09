"""What a run writes down: TensorBoard's events beside metrics.jsonl, and disks that refuse them."""

import errno
import resource
import struct
from unittest import mock

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from repdiff import logbook


def events(directory):
    """The events of all files in a directory, in the order of the files' times."""
    found = []
    for path in sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        raw = path.read_bytes()
        while raw:  # TFRecord: length, its checksum, data, the data's checksum
            length = struct.unpack('<Q', raw[:8])[0]
            found.append(Event.FromString(raw[12:12 + length]))
            raw = raw[16 + length:]
    return found


def test_events_say_what_the_lines_say(tmp_path, monkeypatch):
    with logbook.Logbook(tmp_path, 'row.tune', 0) as first:
        for step in range(1, 6):
            first.write(step, loss=1 / step, valid_auroc=step / 10)
            assert events(tmp_path / 'tensorboard' / 'row.tune')[-1].step == step  # on disk by now
    monkeypatch.setattr('time.time', lambda: 4e9)  # the file is named by the second
    with logbook.Logbook(tmp_path, 'row.tune', 3) as resumed:
        resumed.write(4, loss=0.5)
    assert [line['step'] for line in logbook.read(tmp_path)] == [1, 2, 3, 4]
    found = events(tmp_path / 'tensorboard' / 'row.tune')
    values = [(event.step, value.tag, value.simple_value)
              for event in found for value in event.summary.value]
    assert values == [
        pair for step in range(1, 6)
        for pair in ((step, 'loss', pytest.approx(1 / step)),
                     (step, 'valid_auroc', pytest.approx(step / 10)))
    ] + [(4, 'loss', 0.5)]
    starts = [event.step for event in found if event.session_log.status == SessionLog.START]
    assert starts == [1, 4]  # from there on, TensorBoard drops what was written before


def test_a_disk_that_refuses_events_is_an_error_of_who_writes(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # bytes of a file
    try:
        with (pytest.raises(OSError) as refused,
              logbook.Logbook(tmp_path, 'row.tune', 0) as log):
            for step in range(1, 100):
                (tmp_path / 'metrics.jsonl').unlink(missing_ok=True)  # it is not what grows here
                log.write(step, loss=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.errno == errno.EFBIG


def test_a_disk_that_is_full_by_the_end_does_not_hide_the_first_error(tmp_path):
    with (pytest.raises(KeyError, match='first'),
          logbook.Logbook(tmp_path, 'row.tune', 0) as log):
        log._events.close = mock.Mock(side_effect=OSError(errno.ENOSPC, 'full'))
        raise KeyError('first')
    with (pytest.raises(OSError, match='full'),
          logbook.Logbook(tmp_path, 'row.tune', 0) as log):
        log._events.close = mock.Mock(side_effect=OSError(errno.ENOSPC, 'full'))
