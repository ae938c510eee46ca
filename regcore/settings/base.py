"""Settings as objects: one declaration gives the default, range, type and description of every key.

A class derived from :class:`Settings` is read from YAML, checked, documented and offered to editors from the same
declaration, and its values are attributes that a type checker knows.  A key that is a word of Python gets an
underscore behind its attribute: ``lambda`` is ``settings.lambda_``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from regcore.errors import InputError
from regcore.settings.messages import sentences
from regcore.settings.schema import plain_schema

#: A number as it was given: a whole number stays one, so that fingerprints of settings tell 1 from 1.0 as files do.
Number = int | float
#: A number from 0 on.
NonNegative = Annotated[Number, Field(ge=0)]
#: A number above 0.
Positive = Annotated[Number, Field(gt=0)]
#: A whole number from 0, or from 1, on.
Whole = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
#: The largest seed that every tool takes: a C program keeps it in 32 bits with a sign.
LARGEST_SEED = 2**31 - 1
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
#: More threads than any machine has, which only a slip asks for.
MOST_THREADS = 1024
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)]


def key_of(attribute: str) -> str:
    """The key in a file of an attribute.

    Parameters
    ----------
    attribute : str
        May end in an underscore, because its key is a word of Python.

    Returns
    -------
    str

    Examples
    --------
    >>> from regcore.settings.base import key_of
    >>> key_of("lambda_"), key_of("window")
    ('lambda', 'window')
    """
    return attribute.rstrip("_")


def absent(value: Any) -> bool:
    """For ``Field(exclude_if=absent)``: a key that is left out where it has no value, as in the files of users.

    Parameters
    ----------
    value : any
        That of the key.

    Returns
    -------
    bool

    Examples
    --------
    >>> from regcore.settings.base import absent
    >>> absent(None), absent(0)
    (True, False)
    """
    return value is None


class Settings(BaseModel):
    """Base of all settings.

    Values keep the type that they were given in.  Nothing is converted: ``"3"`` is no number and ``1`` no truth value.

    Examples
    --------
    >>> from pydantic import Field
    >>> from regcore.settings.base import NonNegative, Settings
    >>> class Smoothing(Settings):
    ...     lambda_: NonNegative = Field(1, description="weight of smoothness")
    >>> Smoothing.read({"lambda": 0.5}, "methods.mine").lambda_
    0.5
    >>> Smoothing.read({"lamda": 0.5}, "methods.mine")
    Traceback (most recent call last):
    ...
    regcore.errors.InputError: methods.mine: unknown key 'lamda'; did you mean 'lambda'?
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=AliasGenerator(alias=key_of),
        protected_namespaces=(),
    )

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str) -> Self:
        """Check ``values``, as read from YAML, and fill in defaults.

        Parameters
        ----------
        values : mapping
            Key → value.
        where : str
            What the settings are called in messages: a file, or a key such as ``methods.greedy``.

        Raises
        ------
        InputError
            One line for each mistake: the key, what is wrong, what is allowed, the nearest key for a misspelt one.
        """
        try:
            return cls.model_validate(dict(values) if isinstance(values, Mapping) else values)
        except ValidationError as error:
            raise InputError("\n".join(sentences(error, cls, values, where))) from None

    def as_dict(self) -> dict[str, Any]:
        """Key → value of everything, JSON-like, in the words of a study's file."""
        return self.model_dump(by_alias=True)

    @classmethod
    def attributes(cls) -> dict[str, str]:
        """Key → attribute, in the order of the declaration."""
        return {key_of(name): name for name in cls.model_fields}

    @property
    def given(self) -> set[str]:
        """The keys that were given, defaults aside."""
        return {key_of(name) for name in self.model_fields_set}

    def value(self, key: str) -> Any:
        """The value of a key whose name is known only at run time, such as a hyperparameter's.

        Raises
        ------
        KeyError
            There is no such key.
        """
        return getattr(self, type(self).attributes()[key])

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """A copy with other values for some keys, which are not checked."""
        attributes = type(self).attributes()
        return self.model_copy(update={attributes[key]: value for key, value in values.items()})

    @classmethod
    def schema_of_keys(cls) -> dict[str, dict[str, Any]]:
        """Key → JSON schema of its value, with ``description`` and ``default``, references resolved."""
        return plain_schema(cls)["properties"]


class Section(Settings):
    """Settings that are dumped in the order of their file, what it leaves out behind.

    Snakemake knows what a job was made with from the text of its parameters, the order of keys included.

    Examples
    --------
    >>> from regcore.settings.base import Count, Number, Section
    >>> class Grid(Section):
    ...     spacing: Number = 1
    ...     shape: Count = 16
    >>> Grid.read({"shape": 32}, "grid").as_dict()
    {'shape': 32, 'spacing': 1}
    """

    @model_validator(mode="wrap")
    @classmethod
    def _in_given_order(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(values)
        if isinstance(values, Mapping):
            attributes, content = cls.attributes(), made.__dict__
            given = [attributes[key] for key in values if key in attributes]
            content.update({name: content.pop(name) for name in dict.fromkeys([*given, *content])})
        return made
