"""What the settings of all methods have in common."""

from collections.abc import Mapping
from inspect import get_annotations
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import Field

from regcore.settings.base import Number, Settings, key_of

#: A number from 0 to 1.
Share = Annotated[Number, Field(ge=0, le=1)]

Other = TypeVar("Other", bound="MethodSettings")


class MethodSettings(Settings):
    """Settings under the names of a method's paper; every one has a default.

    A class with ``presets`` has the setting ``preset``, which changes defaults.  What is given beside it stands.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str) -> Self:
        """Check ``values``, fill in the preset's and then all other defaults, and settle the rest.

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
        """Fill in what follows from other settings, and check those that must fit each other.

        Parameters
        ----------
        given : mapping
            What was given, without any default.
        where : str
            What the settings are called in messages.

        Raises
        ------
        InputError
            Two settings do not fit each other.
        """

    @property
    def unused(self) -> set[str]:
        """Keys that change nothing beside the others."""
        return set()

    def missing(self) -> str | None:
        """What the method needs and does not find here, and how to get it; None where nothing is missing."""
        return None

    @classmethod
    def schema_of_keys(cls) -> dict[str, dict[str, Any]]:
        """As of all settings; what is peculiar to the method comes before what it shares with others."""
        rules = super().schema_of_keys()
        declared = [key_of(name) for declaring in cls.__mro__ for name in get_annotations(declaring)]
        return {key: rules[key] for key in dict.fromkeys(declared) if key in rules}

    def as_settings_of(self, other: type[Other]) -> Other:
        """The values of the keys of another class, all of which this one has; they are not checked."""
        return other.model_construct(**{key: self.value(key) for key in other.attributes()})
