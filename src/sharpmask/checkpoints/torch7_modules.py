"""The modules of a Torch7 model in the order in which they run, taken one by one."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sharpmask.checkpoints.torch7_values import LuaTable, TorchObject
from sharpmask.errors import ModelError

MAX_MODULES = 10_000  # of one flattened container; a damaged file can make a container hold itself
_TRANSPARENT = ("Identity", "Copy", "Dropout")  # nothing happens here at inference


def kind_of(module: TorchObject) -> str:
    """The class name without its package (nn, cudnn, inn)."""
    return module.class_name.rpartition(".")[2]


@dataclass
class Leaf:
    """One module that is no Sequential, and where it was found."""

    path: str
    module: TorchObject

    @property
    def kind(self) -> str:
        return kind_of(self.module)

    def number(self, name: str, default: float | None = None) -> int:
        value = self.module.get(name, default)
        if not isinstance(value, float | int) or not float(value).is_integer():
            raise self.error(f"field '{name}' is {value!r}, a whole number was expected")
        return int(value)

    def error(self, problem: str) -> ModelError:
        return ModelError(f"{self.path} ({self.module.class_name}): {problem}")


class Steps:
    """The leaves of a container in running order, and how far they were understood."""

    def __init__(self, container: Any, path: str) -> None:
        self.path = path
        self.leaves: list[Leaf] = []
        self._flatten(container, path, 0)
        self.next = 0

    def _flatten(self, module: Any, path: str, depth: int) -> None:
        if not isinstance(module, TorchObject):
            raise ModelError(f"{path}: a module was expected, found {type(module).__name__}")
        if kind_of(module) in _TRANSPARENT:
            return
        if kind_of(module) != "Sequential":
            self.leaves.append(Leaf(path, module))
            return
        if depth > 50 or len(self.leaves) > MAX_MODULES:
            raise ModelError(f"{path}: containers nested without end")
        for number, child in enumerate(children_of(module, path), start=1):
            self._flatten(child, f"{path}.{number}", depth + 1)

    def kind(self) -> str | None:
        """Class of the next leaf, None at the end."""
        return self.leaves[self.next].kind if self.next < len(self.leaves) else None

    def take(self, kinds: Collection[str]) -> Leaf:
        """The next leaf, which must be of one of these classes."""
        if self.next == len(self.leaves):
            raise ModelError(f"{self.path}: ends where {' or '.join(kinds)} was expected")
        leaf = self.leaves[self.next]
        if leaf.kind not in kinds:
            raise leaf.error(f"not understood at this place, where {' or '.join(kinds)} was expected")
        self.next += 1
        return leaf

    def position(self) -> range:
        """Which of the container's own modules, counted from 1, give the output of what was taken so far, if any."""
        own = [int(leaf.path[len(self.path) + 1 :].partition(".")[0] or 0) for leaf in self.leaves]
        after = own[self.next] if self.next < len(own) else own[-1] + 1
        return range(own[self.next - 1], after)

    def end(self) -> None:
        if self.next < len(self.leaves):
            raise self.leaves[self.next].error("not understood: nothing was expected after the modules before it")


def children_of(module: TorchObject, path: str) -> list[Any]:
    modules = module.get("modules")
    if not isinstance(modules, LuaTable) or len(modules.sequence()) != len(modules):
        raise ModelError(f"{path} ({module.class_name}): has no list of modules")
    return modules.sequence()
