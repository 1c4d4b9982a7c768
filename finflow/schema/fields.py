"""What every section is built of: the base of all sections, and the kinds of values."""

import hashlib
import json
from datetime import date
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
Schedule = Annotated[list[NonNegative], Field(min_length=2, max_length=2)]
"""Value at the start and at the end of training; linear between them."""
