"""The texts under the fields of dataclasses, for the command line's help."""

import ast
import dataclasses
import inspect
import textwrap
from itertools import pairwise
from typing import get_type_hints


def field_docs(kind: type, prefix: str = "") -> dict[str, str]:
    """Field -> the string that stands under it in the source, of a dataclass and of the dataclasses it holds.

    Fields within fields have names like `stage.steps`.
    """
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, text in pairwise(definition.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            docs[prefix + field.target.id] = " ".join(str(text.value.value).split())
    hints = get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[entry.name]):
            docs |= field_docs(hints[entry.name], f"{prefix}{entry.name}.")
    return docs
