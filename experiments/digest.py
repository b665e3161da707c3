"""A digest of the code that a number depends on: what the measuring functions reach, and nothing else.

Starting from some functions, every name that a definition mentions is followed through this clone: inside
`experiments` and `datasets` to the one definition, in `readouts` to the whole module and all that it imports.
Docstrings, comments and layout do not count, nor do tables, figures and findings, which only read rows.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLLOWED, WHOLE = ("experiments", "datasets"), "readouts"
NOT_MEASURING = "cluster console experiment figures jobs options parallel records run"
HARNESS = {f"experiments.{name}" for name in NOT_MEASURING.split()}
CORE = "readouts.kernels.native"  # its own sources are in csrc/

Name = tuple[str, str]  # module and definition; "" is all of the module


def digest(functions: Iterable[Callable[..., object]]) -> str:
    """A digest of these functions of the clone and of what they reach."""
    waiting = [(function.__module__, function.__qualname__.partition(".")[0]) for function in functions]
    found: dict[Name, bytes] = {}
    while waiting:
        name = waiting.pop()
        if name not in found and name[0] not in HARNESS:
            found[name] = b""
            nodes = nodes_of(*name)
            found[name] = "\n".join(map(ast.dump, nodes)).encode()
            waiting += [reached for node in nodes for reached in mentioned(name[0], node)]
    hashed = hashlib.sha256()
    for name in sorted(found):
        hashed.update(f"{name}\0".encode() + found[name] + b"\0")
    if any(module.startswith(CORE) for module, _ in found):
        for source in sorted((ROOT / "csrc").glob("*.*")):
            hashed.update(source.read_bytes())
    return hashed.hexdigest()[:16]


def nodes_of(module: str, name: str) -> list[ast.stmt]:
    """The statements that define a name, or all of a module."""
    tree, defined, _ = parsed(module)
    return defined.get(name, []) if name else tree


def mentioned(module: str, node: ast.AST) -> Iterator[Name]:
    """What a statement of a module mentions of this clone."""
    _, defined, imported = parsed(module)
    if module.partition(".")[0] == WHOLE:
        yield from ((name, "") for name, _ in imports(node))
        return
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            target = imported.get(part.value.id)
            if target and not target[1]:
                yield found_in(f"{target[0]}.{part.attr}") or narrowed(target[0], part.attr)
        elif isinstance(part, ast.Name):
            if part.id in defined:
                yield module, part.id
            elif (target := imported.get(part.id)) and target[1]:
                yield narrowed(*target)
        elif isinstance(part, ast.Import | ast.ImportFrom):
            yield from (narrowed(*target) for target in imports(part) if target[1])


def narrowed(module: str, name: str) -> Name:
    """A definition, or the whole module where it is of the library; re-exports are followed."""
    if module.partition(".")[0] == WHOLE:
        return module, ""
    _, defined, imported = parsed(module)
    return narrowed(*imported[name]) if name not in defined and name in imported else (module, name)


@cache
def parsed(module: str) -> tuple[list[ast.stmt], dict[str, list[ast.stmt]], dict[str, Name]]:
    """The statements of a module, those that define each name, and what its imports stand for."""
    path = place(module)
    tree = Bare().visit(ast.parse(path.read_text(encoding="utf-8"))) if path else ast.Module([], [])
    defined: dict[str, list[ast.stmt]] = {}
    imported: dict[str, Name] = {}
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            defined.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name for alias in statement.names]
            targets = zip(names, imports(statement, everything=True), strict=True)
            imported |= {name: target for name, target in targets if place(target[0])}
        else:
            for part in targets_of(statement):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    defined.setdefault(part.id, []).append(statement)
    return tree.body, defined, imported


def targets_of(statement: ast.stmt) -> Iterator[ast.AST]:
    """What a statement assigns to; variables of its comprehensions are no names of the module."""
    if isinstance(statement, ast.Assign):
        return (part for target in statement.targets for part in ast.walk(target))
    return ast.walk(statement.target if isinstance(statement, ast.AnnAssign | ast.AugAssign) else statement)


def imports(node: ast.AST, everything: bool = False) -> Iterator[Name]:
    """Module and name of every import below a node, as far as it is of this clone."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import | ast.ImportFrom):
            for alias in part.names:
                base = f"{part.module}." if isinstance(part, ast.ImportFrom) else ""
                module = found_in(base + alias.name)
                target = module or (base.rstrip(".") or alias.name, alias.name if base else "")
                if everything or place(target[0]):
                    yield target


def found_in(module: str) -> Name | None:
    """All of a module, where there is one of this name."""
    return (module, "") if place(module) else None


@cache
def place(module: str) -> Path | None:
    """The file of a module of this clone."""
    if module.partition(".")[0] not in (*FOLLOWED, WHOLE):
        return None
    path = ROOT.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.exists()), None)


class Bare(ast.NodeTransformer):
    """Takes docstrings away."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Drop strings that stand alone."""
        super().generic_visit(node)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not is_text(part)]
        return node


def is_text(node: ast.AST) -> bool:
    """Return whether a statement is nothing but a string."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
