"""What declarations of settings need beside pydantic's own constraints."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from regcore.settings.base import Settings, absent


def left_out(description: str) -> Any:
    """A key without a default: it is None where it is not given, and then not dumped either.

    Parameters
    ----------
    description : str
        What the key means.

    Returns
    -------
    pydantic field

    Examples
    --------
    >>> from regcore.settings.base import Settings
    >>> from regcore.settings.fields import left_out
    >>> class Scan(Settings):
    ...     sessions: int | None = left_out("scans per subject")
    >>> Scan.read({}, "scan").as_dict(), Scan.read({"sessions": 2}, "scan").as_dict()
    ({}, {'sessions': 2})
    """
    return Field(None, exclude_if=absent, description=description, json_schema_extra=_without_default)


def section(kind: type[Settings], description: str) -> Any:
    """A part of a file with keys of its own, which may be left out: its defaults then hold.

    Parameters
    ----------
    kind : type
        A class derived from :class:`~regcore.settings.base.Settings`.
    description : str
        What the part is for.

    Returns
    -------
    pydantic field

    Examples
    --------
    >>> from regcore.settings.base import Settings
    >>> from regcore.settings.fields import section
    >>> class Grid(Settings):
    ...     spacing: float = 1.0
    >>> class Study(Settings):
    ...     grid: Grid = section(Grid, "where images are registered")
    >>> Study.read({}, "study").grid.spacing
    1.0
    """
    return Field(default_factory=kind, description=description)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


class Distinct:
    """Annotation of a list: no item occurs twice.

    Examples
    --------
    >>> from typing import Annotated
    >>> from regcore.settings.base import Settings
    >>> from regcore.settings.fields import Distinct
    >>> class Scan(Settings):
    ...     contrasts: Annotated[list[str], Distinct()]
    >>> Scan.read({"contrasts": ["T1w", "T1w"]}, "scan")
    Traceback (most recent call last):
    ...
    regcore.errors.InputError: scan: contrasts: ['T1w', 'T1w'] has an item twice
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_distinct, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "uniqueItems": True}


def _distinct(values: list[Any]) -> list[Any]:
    if any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError(f"{values!r} has an item twice")
    return values


@dataclass(frozen=True)
class Told:
    """Annotation of a value that may have several forms: one sentence for whatever is wrong with it.

    Parameters
    ----------
    message : str
        The sentence.

    Examples
    --------
    >>> from typing import Annotated
    >>> from regcore.settings.base import Settings
    >>> from regcore.settings.fields import Told
    >>> class Scan(Settings):
    ...     size: Annotated[int | list[int], Told("give one size, or a list")]
    >>> Scan.read({"size": ["a"]}, "scan")
    Traceback (most recent call last):
    ...
    regcore.errors.InputError: scan: size: give one size, or a list
    """

    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._validated, handler(source))

    def _validated(self, value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(self.message) from None
