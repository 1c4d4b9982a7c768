"""Which fields of the schema the program reads: a scan of its sources for `section.field`, types told by names.

A receiver is an object of class C where it is called as the sections of C are (`config.algo.cql`: `cql`), where it is
annotated as C, or where it was assigned from such a receiver; an attribute also where any class keeps a C under it.
A field that is read of a class is read of those that inherit it, and of the one that hands it down.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from finflow.config.compose import CONF_DIR
from finflow.schema import Config
from finflow.schema.fields import Schema

ROOT = CONF_DIR.parents[1]
ALL = "*"
Read = tuple[str, str]
"""Name of a schema's class, and of one of its fields, or `ALL` of them."""
Called = Mapping[str, set[str]]
"""Name of a variable or attribute -> the classes whose objects it may hold."""


def schemas_in(hint: Any) -> list[type[Schema]]:
    """Schema classes in an annotation."""
    if isinstance(hint, type) and issubclass(hint, Schema):
        return [hint]
    if get_origin(hint) in (Annotated, Union, UnionType, list, tuple):
        return [found for arg in get_args(hint) for found in schemas_in(arg)]
    return []


def tree_of(root: type[Schema]) -> dict[type[Schema], set[str]]:
    """Every class of the tree, and what it inherits from -> the names that its sections have."""
    found: dict[type[Schema], set[str]] = {root: {"config"}}
    waiting = [root]
    while waiting:
        for name, info in waiting.pop().model_fields.items():
            for cls in schemas_in(info.annotation):
                waiting += [] if cls in found else [cls]
                for own in cls.__mro__[: cls.__mro__.index(Schema)]:
                    found.setdefault(own, set()).add(name)
    return found


def unread(root: type[Schema] = Config) -> set[str]:
    """`Class.field` of every field that nothing reads, neither the program nor another key of `conf/`."""
    classes = tree_of(root)
    names = {cls.__name__: own for cls, own in classes.items()}
    files = (ROOT / "finflow").rglob("*.py")
    trees = {path: ast.parse(path.read_text()) for path in files}
    called = {path: _called(tree, names) for path, tree in trees.items()}
    kept: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for name, value in _assigned(tree, of_self=True):
            kept[name] |= called[path].get(_tail(value), set())
    found: set[Read] = set()
    for path, tree in trees.items():
        found |= _properties(tree) if path.parent.name == "schema" else _reads(tree, called[path], kept)
    for key in _interpolated():
        *above, field = key.split(".")
        found |= {(name, field) for name, own in names.items() if (above[-1] if above else "config") in own}
    kin = {
        cls: {other.__name__ for other in classes if issubclass(cls, other) or issubclass(other, cls)}
        for cls in classes
    }
    return {
        f"{cls.__name__}.{name}"
        for cls in classes
        for name, info in cls.model_fields.items()
        if not schemas_in(info.annotation) and not found & {(of, each) for of in kin[cls] for each in (name, ALL)}
    }


def _called(tree: ast.AST, names: Mapping[str, set[str]]) -> Called:
    called: dict[str, set[str]] = defaultdict(set)
    for cls, own in names.items():
        for name in own:
            called[name].add(cls)
    aliases = {name: name for name in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            aliases |= {one.asname: one.name for one in node.names if one.asname is not None and one.name in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            name = node.arg if isinstance(node, ast.arg) else _tail(node.target)
            words = re.findall(r"\w+", ast.unparse(node.annotation))
            called[name] |= {aliases[word] for word in words if word in aliases}
    for _ in range(2):  # what was assigned from something assigned
        for name, value in _assigned(tree):
            called[name] |= called.get(_tail(value), set())
    return called


def _reads(tree: ast.AST, called: Called, kept: Called) -> set[Read]:
    found: set[Read] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            classes = called.get(_tail(node.value), set())
            if isinstance(node.value, ast.Attribute):
                classes = classes | kept.get(node.value.attr, set())
            found |= {(cls, node.attr) for cls in classes}
        if isinstance(node, ast.keyword) and node.arg is None and isinstance(node.value, ast.Call):
            spread = node.value.func  # f(**section.model_dump()) hands all of them on
            if isinstance(spread, ast.Attribute) and spread.attr == "model_dump" and not node.value.keywords:
                found |= {(cls, ALL) for cls in called.get(_tail(spread.value), set())}
    return found


def _properties(tree: ast.AST) -> set[Read]:
    """What the properties of the schema's own classes read; its validators use nothing."""
    found: set[Read] = set()
    for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for method in (node for node in cls.body if isinstance(node, ast.FunctionDef)):
            if any(_tail(decorator) == "property" for decorator in method.decorator_list):
                attributes = (node for node in ast.walk(method) if isinstance(node, ast.Attribute))
                found |= {(cls.name, node.attr) for node in attributes if _tail(node.value) == "self"}
    return found


def _interpolated() -> set[str]:
    """Keys whose values other keys of `conf/` take over."""
    texts = (path.read_text() for path in CONF_DIR.rglob("*.yaml"))
    return {key for text in texts for key in re.findall(r"\$\{([\w.]+)\}", text)}


def _assigned(tree: ast.AST, *, of_self: bool = False) -> Iterator[tuple[str, ast.expr]]:
    """Last name of every target with its value, those of tuples one by one; `of_self`: of `self.name` alone."""
    for node in ast.walk(tree):
        for target in node.targets if isinstance(node, ast.Assign) else []:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=False))
            for one, value in pairs:
                if not of_self or (isinstance(one, ast.Attribute) and _tail(one.value) == "self"):
                    yield _tail(one), value


def _tail(node: ast.expr) -> str:
    """Last name of `a.b.c` or `a`; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
