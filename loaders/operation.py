"""`Operation`: a change to finished views that a recipe lists under `extra`, and its registry.

Imports without torch, like recipes; the operations themselves, in `loaders/operations/`, need it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, get_origin

from patchmill.loaders.common import own_code, settings
from patchmill.loaders.common.calls import nearest
from patchmill.loaders.common.errors import MillError

if TYPE_CHECKING:
    from torch import Tensor

    from patchmill.loaders.operations.draws import Draws

PAGE = "docs/guides/own-operation.md"
KINDS: dict[str, type[Operation]] = {}  # by the class's name, which YAML writes as `kind`

Kind = TypeVar("Kind", bound="type[Operation]")


@dataclass(frozen=True)
class Operation:
    """Base class of operations: frozen dataclasses of numbers, text or tuples of those.

    Called on the loader's device with those views of one group that the operation applies to, any
    number at a time. A view's result must depend on that view and its draws alone.
    """

    kind: ClassVar[str] = "Operation"
    setting_type: ClassVar[str] = "operations"
    # False: `views` are float32, 0 to 1, and may leave that range. True: `views` are as in a
    # batch, in the loader's dtype: normalised, or 0 to 255 as uint8.
    normalised: ClassVar[bool] = False
    moves: ClassVar[bool] = False  # True if it moves pixels, which a batch's geometry ignores

    p: float | tuple[float, ...] = 1.0  # probability, or one for each view of the group

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.kind = cls.__name__

    def __post_init__(self) -> None:
        if "__dataclass_fields__" not in vars(type(self)):
            raise MillError(
                f"the operation {self.kind} must be a dataclass: put @dataclass(frozen=True) above "
                "its class, so that its settings are part of the recipe"
            )
        cls: Any = type(self)
        for name, annotation in settings.field_annotations(cls).items():
            if not all(map(_is_plain, settings.union_members(annotation))):
                shown = inspect.formatannotation(annotation)
                raise MillError(
                    f"{self.kind}: {name} is annotated as {shown}, but settings of an operation "
                    "are numbers, text, or tuples such as tuple[float, ...]"
                )
            value = settings.checked(annotation, getattr(self, name), f"{self.kind}: {name}")
            object.__setattr__(self, name, value)

    def __call__(self, views: Tensor, draws: Draws) -> Tensor:
        """The changed views [N, 3, h, w], of the shape and dtype of `views`."""
        raise NotImplementedError(f"the operation {self.kind} has no __call__: see {PAGE}")

    @staticmethod
    def from_setting(value: Any, name: str) -> Operation:
        """The operation that a recipe lists; errors refer to the setting as `name`."""
        if isinstance(value, Operation):
            return _hashable(value, name)
        if isinstance(value, Mapping):
            fields = {key: field for key, field in value.items() if key != "kind"}
            cls = _class_of(value.get("kind"), name)
            return _hashable(settings.from_plain(cls, fields, f"{name}."), name)
        if isinstance(value, type) and issubclass(value, Operation):
            raise MillError(f"{name} must be an operation, not its class: write {value.kind}()")
        what = f"a {type(value).__name__}" if callable(value) else repr(value)
        raise MillError(
            f"{name} must be an operation, not {what}: derive a frozen dataclass from Operation, "
            f"so that its settings are part of the recipe, as {PAGE} shows"
        )


def _is_plain(option: Any) -> bool:
    """True for setting types that recipes can hold."""
    scalars = (int, float, str, bool, type(None), Any)
    return option in scalars or get_origin(option) in (tuple, Literal, Annotated)


def operation(cls: Kind) -> Kind:
    """Register a class, so that recipes in YAML and plain data can name it as a `kind`."""
    if not (isinstance(cls, type) and issubclass(cls, Operation)):
        raise MillError(f"@operation is for classes derived from Operation, which {cls!r} is not")
    known = KINDS.get(cls.kind)
    if known and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise MillError(
            f"there is an operation {cls.kind} already, in {known.__module__}: rename this one"
        )
    KINDS[cls.kind] = cls  # a class redefined in a notebook replaces itself
    return cls


def _class_of(kind: Any, name: str) -> type[Operation]:
    from patchmill.loaders import operations  # noqa: F401  # registers the built-in ones

    if isinstance(kind, str) and kind in KINDS:
        return KINDS[kind]
    if isinstance(kind, str) and ":" in kind:
        return operation(own_code.load(kind, f"{name}.kind: {kind}"))
    if not isinstance(kind, str):
        raise MillError(f"{name} must be a mapping whose kind is one of: {', '.join(KINDS)}")
    raise MillError(
        f"{name}: there is no operation {kind!r}{nearest(kind, KINDS)}; write your own as "
        "module:Name, or put @operation above its class and import its module first"
    )


def _hashable(made: Operation, name: str) -> Operation:
    try:
        hash(made)
    except TypeError:
        fields = [f.name for f in dataclasses.fields(made) if _is_mutable(getattr(made, f.name))]
        raise MillError(
            f"{name}: {' and '.join(fields) or made.kind} of {made.kind} cannot be hashed: use "
            "numbers, text and tuples as settings"
        ) from None
    return made


def _is_mutable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return True
    return False
