"""Rules that combine markers into one label, without eval: `hematoma = a | ~(b & c)`."""

import dataclasses
import re
from collections.abc import Mapping

from repdiff.errors import UserError

_TOKEN = re.compile(r'\s*(?:([^\W\d][\w.]*|"[^"]+")|([|&~()]))')
_MAX_TOKENS = 200  # far above any real rule, far below Python's recursion limit


@dataclasses.dataclass(frozen=True)
class Rule:
    """A parsed rule.

    Attributes:
      name: what the rule defines; the positive class.
      markers: the columns it reads, in order of first appearance.
      tree: nested tuples ('|', a, b), ('&', a, b), ('~', a), or a column name.
    """

    name: str
    markers: tuple[str, ...]
    tree: tuple | str

    def __call__(self, values: Mapping[str, int | None]) -> int | None:
        """0, 1, or None where the unknown markers decide (Kleene's three-valued logic)."""
        value = _evaluate(self.tree, values)
        return None if value == 0.5 else int(value)


def parse(text: str) -> Rule:
    """Reads `NAME = EXPRESSION`, or `COLUMN` alone, which stands for `COLUMN = COLUMN`.

    `~` binds before `&`, and `&` before `|`; names with blanks or signs go in double quotes.

    Raises:
      UserError: the text does not follow this grammar, with the place where it stops to.
    """
    name, equals, expression = text.rpartition('=')
    tokens = _tokenise(expression, text)
    tree, rest = _either(tokens, text)
    if rest:
        raise UserError(f'label rule {text!r} has {rest[0]!r} where "|", "&" or the end belongs.')
    markers = tuple(dict.fromkeys(token.strip('"') for token in tokens if token not in '|&~()'))
    if not equals and len(tokens) > 1:
        raise UserError(f'label rule {text!r} has no name; write it as NAME = {text.strip()}.')
    name = name.strip().strip('"') if equals else markers[0]
    if not name or '=' in name:
        raise UserError(f'label rule {text!r} should be NAME = EXPRESSION with one "=".')
    return Rule(name, markers, tree)


def _tokenise(expression: str, text: str) -> list[str]:
    tokens, at = [], 0
    expression = expression.rstrip()
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if not match:
            raise UserError(
                f'label rule {text!r} cannot be read at {expression[at:].strip()[:20]!r}; use '
                'column names, "|", "&", "~" and parentheses.'
            )
        tokens.append(match[1] or match[2])
        at = match.end()
    if len(tokens) > _MAX_TOKENS:
        raise UserError(f'the label rule has {len(tokens)} parts; at most {_MAX_TOKENS} are read.')
    return tokens


def _either(tokens: list[str], text: str) -> tuple[tuple | str, list[str]]:
    tree, rest = _both(tokens, text)
    while rest and rest[0] == '|':
        right, rest = _both(rest[1:], text)
        tree = ('|', tree, right)
    return tree, rest


def _both(tokens: list[str], text: str) -> tuple[tuple | str, list[str]]:
    tree, rest = _atom(tokens, text)
    while rest and rest[0] == '&':
        right, rest = _atom(rest[1:], text)
        tree = ('&', tree, right)
    return tree, rest


def _atom(tokens: list[str], text: str) -> tuple[tuple | str, list[str]]:
    if not tokens or tokens[0] in '|&)':
        found = repr(tokens[0]) if tokens else 'the end'
        raise UserError(f'label rule {text!r} has {found} where a column name belongs.')
    if tokens[0] == '~':
        tree, rest = _atom(tokens[1:], text)
        return ('~', tree), rest
    if tokens[0] == '(':
        tree, rest = _either(tokens[1:], text)
        if not rest or rest[0] != ')':
            raise UserError(f'label rule {text!r} has an opening parenthesis that never closes.')
        return tree, rest[1:]
    return tokens[0].strip('"'), tokens[1:]


def _evaluate(tree: tuple | str, values: Mapping[str, int | None]) -> float:
    if isinstance(tree, str):
        value = values[tree]
        return 0.5 if value is None else value
    if tree[0] == '~':
        return 1 - _evaluate(tree[1], values)
    pick = max if tree[0] == '|' else min
    return pick(_evaluate(tree[1], values), _evaluate(tree[2], values))
