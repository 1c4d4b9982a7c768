"""What every section is built of: its base, the kinds of values, and the marks that say what a key is to a run.

A key's marks stand in its annotation, `Annotated[Count, Role.STUDY, ReadBy("pretrain")]`; a key without one has that of
its section. What is resumed, matched, averaged, printed, hashed or refused follows from these marks.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import Enum, auto
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Schema(BaseModel):
    """Base of every section: frozen, no coercion, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def schemas_in(hint: Any) -> list[type[Schema]]:
    """Sections that an annotation may hold: several of a union."""
    if isinstance(hint, type) and issubclass(hint, Schema):
        return [hint]
    if get_origin(hint) in (Annotated, Union, UnionType):
        return [found for arg in get_args(hint) for found in schemas_in(arg)]
    return []


def digest(value: Any) -> str:
    """Short stable hash of plain data or of a parsed config section."""
    plain = value.model_dump() if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _calendar_day(value: str) -> str:
    try:
        written = date.fromisoformat(value).isoformat()
    except ValueError:
        written = ""
    if written != value:
        raise ValueError("not a calendar day; write it as YYYY-MM-DD")
    return value


def _wandb_name(value: str) -> str:
    if set(value) & set("/\\#?%:"):
        raise ValueError("a name on W&B has none of / \\ # ? % : in it; leave them out")
    return value


def number_as_text(value: Any) -> Any:
    """`fold=2008` arrives as a number; a text field keeps the text that was typed."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Discount = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, BeforeValidator(number_as_text), Field(min_length=1)]
Day = Annotated[str, AfterValidator(_calendar_day)]
WandbName = Annotated[Text, AfterValidator(_wandb_name)]
Schedule = Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
"""Value at the start and at the end of training; linear between them."""


class Role(Enum):
    """What a key is to a run."""

    DATA = auto()
    """Which prices, days and random draws: pretrained weights are matched by them, and name them."""
    FILE = auto()
    """A file of data and how it is read: weights are matched by its content, and do not name it."""
    MARKET = auto()
    """A rule by which prices become a market, or a series of it: a part of the market's fingerprint."""
    ENVIRONMENT = auto()
    """A rule that portfolios and episodes obey, or that data is checked by: weights of other rules match too."""
    PRETRAINED = auto()
    """Network shape and budget of phase 1, by which pretrained weights are matched."""
    STUDY = auto()
    """What else the stages of a study share: other budgets, offline data, regularisation of the networks."""
    METHOD = auto()
    """A stage's own: algorithm, reward, regime, monitor, validation."""
    INIT = auto()
    """The weights that phase 2 starts from."""
    SAVING = auto()
    """What of a training run is kept and published."""
    COMMAND = auto()
    """What a command is to do beside training: go on with a run, count or collect jobs."""
    REQUEST = auto()
    """What a stage that trains nothing is asked for."""
    OUTPUT = auto()
    """Where runs lie."""
    NAME = auto()
    """What a run is called."""
    HOST = auto()
    """The machine's: changes no more than the last bits of a result."""
    SPEED = auto()
    """What a stage trades memory and time with: changes no more than the last bits of a result."""
    PRECISION = auto()
    """How numbers are multiplied and batches shared out, which changes more than the last bits."""
    TRACKING = auto()
    """Where figures are shown."""


CARRIED = {
    Role.DATA, Role.FILE, Role.MARKET, Role.ENVIRONMENT, Role.PRETRAINED, Role.STUDY, Role.HOST, Role.OUTPUT,
}  # fmt: skip
"""What a printed command hands from one stage to the next; the regime and the algorithm are the stage's own."""
MATCHED = {Role.DATA, Role.FILE, Role.MARKET, Role.PRETRAINED}
"""What pretrained weights are told apart by."""


class ReadBy:
    """Stages that read a key: typed for another stage it is refused."""

    def __init__(self, *stages: str) -> None:
        self.read_by = stages


@dataclass(frozen=True)
class NotWith:
    """A switch that makes a key of no use: typed beside `switch=true` it is refused."""

    not_with: str


class OnlyWith:
    """`key=value` beside a key, or `key` that is set (not null or 0): typed without any of these it is refused."""

    def __init__(self, *needed: str) -> None:
        self.only_with = needed


@dataclass(frozen=True)
class Grows:
    """A resumed run of this stage may be given more of the key."""

    grows: str


@dataclass(frozen=True)
class Was:
    """The key's name in the version before, which is still accepted."""

    was: str


@dataclass(frozen=True)
class Added:
    """The version before did not know the key; its runs, which had this in effect, can still be read."""

    added: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """All that is said of a key, or of a section for the keys in it, each by the name that its mark has."""

    role: Role
    read_by: tuple[str, ...]
    not_with: str | None = None
    only_with: tuple[str, ...] = ()
    grows: str | None = None
    was: str | None = None
    added: tuple[str, ...] | None = None


Marks = Mapping[str, Mark]
"""By the dotted key, each section before the keys in it."""


def marks_of(cls: type[Schema], prefix: str = "", above: Mark | None = None) -> dict[str, Mark]:
    """Marks of all keys and sections below `cls`, by `prefix` and name; of `above` where a key has none of its own.

    A TypeError where a key has no role or no reader, or two algorithms mark one key differently.
    """
    found: dict[str, Mark] = {}
    for name, info in cls.model_fields.items():
        key = f"{prefix}{name}"
        mark = found[key] = _mark(key, above, info.metadata)
        for section in schemas_in(info.annotation):
            for inside, its in marks_of(section, f"{key}.", mark).items():
                if found.setdefault(inside, its) != its:
                    raise TypeError(f"{inside}: {section.__name__} marks it otherwise than another algorithm does")
    return found


def _mark(key: str, above: Mark | None, metadata: list[Any]) -> Mark:
    said: dict[str, Any] = {}
    if above is not None:
        said = {name: getattr(above, name) for name in ("role", "read_by", "not_with", "only_with")}
    for one in metadata:
        if isinstance(one, Role):
            said["role"] = one
        elif isinstance(one, OnlyWith):
            said["only_with"] = tuple(f"{_section(key)}.{needed}".lstrip(".") for needed in one.only_with)
        elif isinstance(one, ReadBy | NotWith | Grows | Was | Added):
            said |= vars(one)
    for name, what in (("role", "role"), ("read_by", "reader")):
        if name not in said:
            raise TypeError(f"{key}: has no {what}; write it into its annotation")
    return Mark(**said)


def keys_where(marks: Marks, wanted: Callable[[Mark], bool]) -> tuple[str, ...]:
    """Keys whose marks are wanted; a section stands for its keys where all of them are."""
    sections = {_section(key) for key in marks}
    left_out: set[str] = set()
    for key, mark in marks.items():
        if key not in sections and not wanted(mark):
            while key:
                left_out.add(key)
                key = _section(key)
    return tuple(key for key in marks if key not in left_out and _section(key) in {"", *left_out})


def _section(key: str) -> str:
    return key.rpartition(".")[0]
