"""Progress of long work: a live line on a terminal, plain lines otherwise; times in words."""

import sys
import time


_silent = False


def silence() -> None:
    """From now on this process shows nothing: another one of the same run does."""
    global _silent
    _silent = True


def note(text: str) -> None:
    """One line on stderr, beside what is under way."""
    if not _silent:
        start = '\r\x1b[K' if sys.stderr.isatty() else ''
        print(f'{start}repdiff: {text}', file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, in two or three digits."""
    for unit, size in (('d', 86400), ('h', 3600), ('min', 60)):
        if seconds >= 1.5 * size:
            return f'{seconds / size:,.3g} {unit}'
    return f'{seconds:.2g} s' if seconds >= 0.01 else '<0.01 s'


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}h{minutes:02}m' if hours else f'{minutes}m{seconds:02}s'


class Progress:
    """Reports how far a loop of `total` items is, its rate and the time left, on stderr.

    `update(n, **values)` adds n finished items; `values` are shown as they are. On a terminal the
    line is redrawn in place; elsewhere a plain line is printed every `interval_s` seconds.
    """

    def __init__(self, total: int, what: str, unit: str = 'it', done: int = 0,
                 interval_s: float = 10.0):
        self.total, self.what, self.unit = total, what, unit
        self.done = self.start = done
        self.live = sys.stderr.isatty()
        self.interval_s = 0.2 if self.live else interval_s
        self.began = self.shown = time.monotonic()

    def update(self, n: int = 1, **values: float) -> None:
        ended = self.done >= self.total  # the end is told once, though updates of nothing follow
        self.done += n
        if _silent or ended:
            return
        now = time.monotonic()
        if self.done >= self.total or now - self.shown >= self.interval_s:
            self.shown = now
            self._show(now - self.began, values)

    def _show(self, elapsed: float, values: dict[str, float]) -> None:
        rate = (self.done - self.start) / max(elapsed, 1e-9)
        left = _clock((self.total - self.done) / rate) if rate > 0 else '?'
        extra = ''.join(f' {name} {value:.4g}' for name, value in values.items())
        line = (f'{self.what}: {self.done}/{self.total} {100 * self.done / max(self.total, 1):.0f}% '
                f'{rate:.4g} {self.unit}/s, {left} left{extra}')
        if self.live:
            end = '\n' if self.done >= self.total else ''
            print(f'\r\x1b[K{line}', end=end, file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
