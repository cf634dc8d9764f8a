"""From a response to the program that is run: the prompt and its continuation, or the code in an answer."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

MOST_LINES = 300
"""Lines of a response among which code without a fence is looked for."""
_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def code_of(response: str, lead: str, entry: str | None) -> tuple[str, bool]:
    """The program in a response, and whether any code was found; ``lead`` is the code that the response may go on from.

    EvalPlus' rule (``sanitize.py``): the longest stretch of lines that is Python, and of it imports and what the entry
    point needs; of fenced blocks, the longest that defines it. Without an entry point the blocks are taken together.
    """
    blocks = [block for block in _FENCE.findall(response.replace("\r\n", "\n")) if block.strip()]
    if entry is None:
        whole = "\n".join(blocks) if blocks else response
        return (whole, True) if parsed(whole) is not None else (_longest_code(whole), False)
    candidates = [_longest_code(block) for block in blocks] or [_longest_code(response)]
    defining = [code for code in candidates if _defines(code, entry)]
    if defining:
        return needed_by(max(defining, key=_weight), entry), True
    for code in [*blocks, response]:  # the rest of a function
        if (continued := _longest_start(lead, code)) is not None:
            return continued, True
    return lead + response, False


def needed_by(code: str, entry: str) -> str:
    """Imports, and definitions that the entry point reaches; of several with one name the first that returns."""
    tree = parsed(code)
    if tree is None:
        return code
    definitions: dict[str, ast.stmt] = {}
    for node in tree.body:
        for name in _defined(node):
            definitions.setdefault(name, node)
    reached, waiting = set[str](), [entry]
    while waiting:
        name = waiting.pop()
        if name in definitions and name not in reached:
            reached.add(name)
            waiting += _names(definitions[name])
    kept = {id(definitions[name]) for name in reached}
    parts = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) or id(node) in kept]
    lines = code.split("\n")
    return "\n".join("\n".join(lines[_first_line(node) - 1 : node.end_lineno]) for node in parts) + "\n"


def parsed(code: str) -> ast.Module | None:
    """The syntax tree of a program; null where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _defined(node: ast.stmt) -> Iterator[str]:
    """Names that a statement defines for others: a class, a function that returns something, a variable."""
    if isinstance(node, ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if any(isinstance(inner, ast.Return | ast.Yield | ast.YieldFrom) for inner in ast.walk(node)):
            yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _names(node: ast.stmt) -> list[str]:
    return [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)]


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _defines(code: str, entry: str) -> bool:
    tree = parsed(code)
    return tree is not None and any(entry in _defined(node) for node in tree.body)


def _weight(code: str) -> int:
    return sum(bool(line.strip()) for line in code.split("\n"))


def _longest_code(text: str) -> str:
    """The longest stretch of lines that is a program; empty where no line is."""
    if parsed(text) is not None:
        return text
    lines = text.split("\n")[:MOST_LINES]
    for length in range(len(lines), 0, -1):
        for first in range(len(lines) - length + 1):
            stretch = "\n".join(lines[first : first + length])
            if stretch.strip() and parsed(stretch) is not None:
                return stretch
    return ""


def _longest_start(lead: str, text: str) -> str | None:
    """The lead and as many of the text's first lines as go on from it; null where not even the first does."""
    lines = text.split("\n")[:MOST_LINES]
    for count in range(len(lines), 0, -1):
        program = lead + "\n".join(lines[:count]) + "\n"
        if any(line.strip() for line in lines[:count]) and parsed(program) is not None:
            return program
    return None
