"""What a compiled program sends between devices, read from its text."""

import re
from dataclasses import dataclass
from math import prod

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')
_LINE = re.compile(rf'= (.*?) ({"|".join(KINDS)})(?:-start)?\(')
_SHAPE = re.compile(r'[a-z]+\d*\[([\d,]*)\]')


@dataclass(frozen=True)
class Collective:
    """One instruction: its kind, the shapes of its results, and whether it is in a loop's body."""

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    looped: bool


def collectives(text: str) -> list[Collective]:
    """All collectives of an HLO module."""

    def shapes(results: str) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(map(int, filter(None, dims.split(',')))) for dims in _SHAPE.findall(results))

    return [
        Collective(match[2], shapes(match[1]), 'while/body' in line)
        for line in text.splitlines() if (match := _LINE.search(line))
    ]


def elements(found: list[Collective], depth: int) -> int:
    """Numbers that the instructions give in one run of the program; loops turn `depth` times."""
    return sum((depth if one.looped else 1) * sum(map(prod, one.shapes)) for one in found)
