"""One process of a run whose first one makes something alone, which takes long, before all go on.

Arguments: directory, coordinator, processes, process, seconds that a piece takes.
"""

import sys
import time
from pathlib import Path

from repdiff import cluster, interrupt

PIECES = 2000


def main(directory, coordinator, processes, process, seconds):
    cluster.start(coordinator, processes, process)
    interrupt.listen()

    def make():
        if not cluster.is_first():
            return (directory / 'made').read_text()
        for _ in range(PIECES):
            interrupt.check()
            (directory / 'working').touch()
            time.sleep(seconds)
        (directory / 'made').write_text('1')
        return '1'

    made = cluster.first_then_rest(make, directory)
    for _ in range(3):
        interrupt.check()  # their counts are the same again
    if process == 1:
        (directory / 'ended').write_text(made)
    cluster.wait_for_all('end')


if __name__ == '__main__':
    with cluster.leave_together():
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
