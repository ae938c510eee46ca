"""The base class of all methods' settings."""

from collections.abc import Mapping
from inspect import get_annotations
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import Field

from regcore.settings.base import Number, Settings, key_of

#: A number from 0 to 1.
Share = Annotated[Number, Field(ge=0, le=1)]

Other = TypeVar("Other", bound="MethodSettings")


class MethodSettings(Settings):
    """Settings with the names of a method's paper. Each has a default.

    A class with ``presets`` has the setting ``preset``, which changes defaults.  Given values take precedence.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str) -> Self:
        """Check ``values``, fill in the preset's and then all other defaults, and call :meth:`settle`.

        Raises
        ------
        InputError
            As for :meth:`Settings.read` and :meth:`settle`.
        """
        preset = values.get("preset") if isinstance(values, Mapping) else None
        defaults = cls.presets.get(preset, {}) if isinstance(preset, str) else {}
        found = super().read({**defaults, **values}, where)
        found.settle(values, where)
        return found

    def settle(self, given: Mapping[str, Any], where: str) -> None:
        """Fill in settings that follow from others, and check that settings fit each other.

        Parameters
        ----------
        given : mapping
            The given values, without defaults.
        where : str
            Name of the settings in messages.

        Raises
        ------
        InputError
            Two settings do not fit each other.
        """

    @property
    def unused(self) -> set[str]:
        """Keys that have no effect with the other settings."""
        return set()

    def missing(self) -> str | None:
        """What the method needs and is missing here, and how to install it; None if nothing is missing."""
        return None

    @classmethod
    def schema_of_keys(cls) -> dict[str, dict[str, Any]]:
        """JSON schema as for all settings. Keys of this method come before those it shares with others."""
        rules = super().schema_of_keys()
        declared = [key_of(name) for declaring in cls.__mro__ for name in get_annotations(declaring)]
        return {key: rules[key] for key in dict.fromkeys(declared) if key in rules}

    def as_settings_of(self, other: type[Other]) -> Other:
        """The values of another class's keys, all of which this one has. They are not checked."""
        values = {key: self.value(key) for key in other.attributes()}
        return other.model_construct(**values)  # type: ignore[return-value]  # mypy's plugin knows only the bound's type
