"""Write docs/configuration.md from what decides: schemas for keys and bounds, conf/ for values.

python docs/tools/configuration.py
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from omegaconf import OmegaConf
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from finflow.config.compose import CONF_DIR, PRESETS, compose_stage, group_choices
from finflow.io.files import flatten
from finflow.schema import ALGORITHMS, READS, STAGES, Config
from finflow.schema.fields import Day, Schema

PAGE = Path(__file__).resolve().parents[1] / "configuration.md"
HEAD = """# Configuration

Made by `make configuration` from the schemas in `finflow/schema/` and the values in `conf/`; do not edit it.

A setting is written `key=value` on the command line, and each stage reads some of them: a key that the stage would
ignore is refused, and so is one that is misspelt or out of range. Lists are written `[a,b]`, nothing is `null`.
With `-m`, `a,b,c` and `range(10)` are several runs. A default that reads *as `key`* follows that key.
"""
DAY_CHECK = next(m for m in get_args(Day) if isinstance(m, AfterValidator))
KINDS = {str: ("text", "texts"), int: ("whole number", "whole numbers"), float: ("number", "numbers")}
COUNTS = {2: "two"}


def page() -> str:
    """The whole page."""
    values = {stage: raw(stage) for stage in STAGES}
    parts = [HEAD, "## Groups\n", table(("group", "option", "what it is"), groups())]
    parts += ["## Presets\n", "A preset sets a few values that belong together; what is typed wins over it.\n"]
    parts += [table(("preset", "what it is", "sets"), presets())]
    for title, rows in sections(values):
        parts += [f"## {title}\n", *rows]
    return "\n".join(parts)


def raw(stage: str, *overrides: str) -> dict[str, Any]:
    """Values of a stage by their dotted keys, interpolations as they are written."""
    found = OmegaConf.to_container(compose_stage(stage, overrides), resolve=False)
    assert isinstance(found, dict)
    return flatten({str(key): value for key, value in found.items()})


def readers(key: str) -> tuple[str, ...]:
    """Stages that read `key`."""
    return tuple(s for s, reads in READS.items() if any(key == r or key.startswith(r + ".") for r in reads))


def groups() -> Iterator[tuple[str, ...]]:
    """Options of the groups that belong to no preset, with what the first line of each file says."""
    offered: dict[str, list[str]] = {}
    for stage in STAGES:
        for group, options in group_choices(stage).items():
            if group not in PRESETS:
                known = offered.setdefault(group, [])
                known += [option for option in options if option not in known]
    for group, options in offered.items():
        for option in options:
            yield f"`{group}`", f"`{option}`", comment(CONF_DIR / group / f"{option}.yaml")


def presets() -> Iterator[tuple[str, ...]]:
    """Presets of every kind, and the values that they set."""
    for group in PRESETS:
        for path in sorted((CONF_DIR / group).glob("*.yaml")):
            set_here = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            assert isinstance(set_here, dict)
            params = set_here.pop("hydra", {}).get("sweeper", {}).get("params", {})
            fixed = flatten({str(key): value for key, value in set_here.items()})
            shown = [*(f"`{k}={v}`" for k, v in params.items()), *(f"`{k}={typed(v)}`" for k, v in fixed.items())]
            yield f"`{group}={path.stem}`", comment(path), ", ".join(shown) or "nothing"


def comment(path: Path) -> str:
    """What the comment at the top of a file says."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "@package" not in line]
    words: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        words.append(line.lstrip("# "))
    return " ".join(words)


def sections(values: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Title and text of each section: the root's own keys first, then the sections in the schema's order."""
    yield "Root keys", [keys_table("", Config, values, {})]
    for name, field in Config.model_fields.items():
        inner = schemas_in(field.annotation)
        for cls in inner:
            if len(inner) == 1:
                yield f"`{name}`", section(name, cls, values, options_of(name))
            else:
                algorithm = str(get_args(cls.model_fields["name"].annotation)[0])
                stage = next(s for s, names in ALGORITHMS.items() if algorithm in names)
                one = {stage: raw(stage, f"algo={algorithm}")}
                yield f"`algo={algorithm}`", section(name, cls, one, {})


def options_of(group: str) -> dict[str, dict[str, Any]]:
    """Option of `group` -> values with it; empty where `group` has no options."""
    stage = next((s for s in STAGES if group in group_choices(s)), None)
    return {} if stage is None else {o: raw(stage, f"{group}={o}") for o in group_choices(stage)[group]}


def section(
    name: str, cls: type[Schema], values: Mapping[str, dict[str, Any]], options: Mapping[str, dict[str, Any]]
) -> list[str]:
    """What the schema says of itself, and its keys with those of the sections inside it."""
    parts = [f"{' '.join((cls.__doc__ or '').split())}\n", keys_table(f"{name}.", cls, values, options)]
    for key, field in cls.model_fields.items():
        for inner in schemas_in(field.annotation):
            parts += [f"### `{name}.{key}`\n"]
            parts += section(f"{name}.{key}", inner, values, options)
    return parts


def keys_table(
    prefix: str, cls: type[Schema], values: Mapping[str, dict[str, Any]], options: Mapping[str, dict[str, Any]]
) -> str:
    """One row a key."""
    rows: list[tuple[str, ...]] = []
    for name, field in sorted(cls.model_fields.items(), key=lambda item: item[0] != "name"):
        if schemas_in(field.annotation) or prefix + name == "stage":  # which the entry point sets
            continue
        if not field.description:
            raise SystemExit(f"finflow/schema: {cls.__name__}.{name} has no docstring; write one below the field")
        key = prefix + name
        stages = [s for s in readers(key) if s in values]
        given = default(key, stages, values, options)
        rows.append((f"`{key}`", takes(field), given, field.description, ", ".join(stages)))
    head = ("key", "takes", "default", "what it is", "read by")
    if len({row[-1] for row in rows}) > 1:
        return table(head, rows)
    return f"Read by {rows[0][-1]}.\n\n" + table(head[:-1], [row[:-1] for row in rows])


def default(
    key: str, stages: Sequence[str], values: Mapping[str, dict[str, Any]], options: Mapping[str, dict[str, Any]]
) -> str:
    """The value where there is one; else one an option, or one a stage."""
    by_option = {option: value(found[key]) for option, found in options.items() if key in found}
    by_stage = {stage: value(values[stage][key]) for stage in stages or tuple(values) if key in values[stage]}
    for found in (by_option, by_stage):
        if len(set(found.values())) > 1:
            return listed(found)
    return next(iter((by_stage or by_option).values()))


def listed(values: Mapping[str, str]) -> str:
    """Values with those that they hold for; the most frequent alone is "else"."""
    counts = {v: [k for k in values if values[k] == v] for v in dict.fromkeys(values.values())}
    common = max(counts, key=lambda v: len(counts[v]))
    rare = [f"{', '.join(keys)}: {v}" for v, keys in counts.items() if v != common]
    return "; ".join([*rare, f"else {common}"])


def value(plain: Any) -> str:
    """A value as it is typed, or the key that it follows."""
    text = typed(plain)
    if text.startswith("${") and text.count("${") == 1:
        return f"as `{text[2:-1]}`"
    return f"`{text.replace('${', '{')}`"


def typed(plain: Any) -> str:
    """Plain data in Hydra's grammar."""
    if isinstance(plain, list):
        return f"[{','.join(typed(v) for v in plain)}]" if len(plain) < 8 else f"{len(plain)} names"
    if isinstance(plain, str):
        return plain
    return f"{plain:g}" if isinstance(plain, float) else json.dumps(plain)


def takes(field: FieldInfo) -> str:
    """Type and bounds of a field, in words."""
    hint: Any = field.annotation
    return in_words(Annotated[(hint, *field.metadata)] if field.metadata else hint)


def in_words(hint: Any, many: bool = False) -> str:
    """Type and bounds of an annotation; `many` in the plural, as of the items of a list."""
    args = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys(in_words(arg) for arg in args))
    if get_origin(hint) is Literal:
        return ", ".join(f"`{typed(arg)}`" for arg in args)
    bounds: list[Any] = []
    if get_origin(hint) is Annotated:
        hint, marks = args[0], args[1:]
        if DAY_CHECK in marks:
            return "days YYYY-MM-DD" if many else "day YYYY-MM-DD"
        bounds = [b for m in marks for b in (m.metadata if isinstance(m, FieldInfo) else [m])]
        if get_origin(hint) in (Union, UnionType, Literal):
            return in_words(hint, many)
    if get_origin(hint) is list:
        return f"{length(bounds)} {in_words(get_args(hint)[0], many=True)}"
    if hint is NoneType:
        return "null"
    if hint is bool:
        return "true or false"
    return " ".join([KINDS[hint][many], *limits(bounds)])


def length(bounds: Sequence[Any]) -> str:
    """How many items a list may have."""
    least = next((b.min_length for b in bounds if isinstance(b, MinLen)), 0)
    most = next((b.max_length for b in bounds if isinstance(b, MaxLen)), None)
    return COUNTS.get(least, str(least)) if most == least else f"list of {least} or more" if least > 1 else "list of"


def limits(bounds: Sequence[Any]) -> list[str]:
    """Bounds of a number."""
    signs = ((Ge, "≥", "ge"), (Gt, ">", "gt"), (Le, "≤", "le"), (Lt, "<", "lt"))
    found = [f"{sign} {power(getattr(b, name))}" for kind, sign, name in signs for b in bounds if isinstance(b, kind)]
    return [", ".join(found)] if found else []


def power(limit: float) -> str:
    """A limit, as a power of two where it is a large one."""
    exact = isinstance(limit, int) and limit > 2**31 and limit & (limit - 1) == 0
    return f"2^{int(limit).bit_length() - 1}" if exact else f"{limit:g}"


def schemas_in(hint: Any) -> list[type[Schema]]:
    """Sections that an annotation may hold."""
    if isinstance(hint, type) and issubclass(hint, Schema):
        return [hint]
    return [cls for arg in get_args(hint) for cls in schemas_in(arg)]


def table(head: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown; a first cell that repeats the one above is left blank."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    above = ""
    for row in rows:
        first = "" if row[0] == above else row[0]
        lines.append(f"| {' | '.join([first, *row[1:]])} |".replace("|  |", "| |"))
        above = row[0]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"Written: {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}\n")
