"""The texts under the fields of dataclasses, for the command line's help."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import get_type_hints


def field_docs(kind: type, prefix: str = "") -> dict[str, str]:
    """Field -> the string that stands under it in the source, of a dataclass and of the dataclasses it holds.

    An inherited field has its base's string where the dataclass gives it none of its own. Fields within fields have
    names like `stage.steps`.
    """
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            docs |= {prefix + name: text for name, text in _own_docs(base)}
    hints = get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[entry.name]):
            docs |= field_docs(hints[entry.name], f"{prefix}{entry.name}.")
    return docs


def _own_docs(kind: type) -> Iterator[tuple[str, str]]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    for field, text in pairwise(definition.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            yield field.target.id, " ".join(str(text.value.value).split())
