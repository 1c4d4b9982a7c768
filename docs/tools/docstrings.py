"""For griffe: parameters of this project's docstrings, `name : what it is`, in the form that numpydoc gives them.

numpydoc reads what follows the colon as a type. Here types stand in the signature and the words after the colon
describe the parameter, so that they belong on a line of their own.
"""

import re
from textwrap import indent
from typing import Any

import griffe

_SECTION = re.compile(r"^(Parameters|Attributes|Returns)\n-+\n((?:.+\n?|\n(?![A-Z][a-z]+\n-))*)", re.MULTILINE)
_PARAMETER = re.compile(r"^(\*{0,2}\w+(?:, \w+)*) : ", re.MULTILINE)


class OwnSections(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = _SECTION.sub(_numpydoc, obj.docstring.value)


def _numpydoc(section: re.Match[str]) -> str:
    title, body = section.groups()
    if title == "Returns":
        named = _PARAMETER.match(body) is not None
        body = _PARAMETER.sub(r"\1 :\n    ", body) if named else ":\n" + indent(body, "    ")
    else:
        body = _PARAMETER.sub(r"\1\n    ", body)
    return f"{title}\n{'-' * len(title)}\n{body}"
