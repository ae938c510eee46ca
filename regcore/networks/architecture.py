"""AutoReg's architectures: the operation on each edge of the cells, as a small file.

::

    {"feature": {"half": ["3-Conv", "5-SConv", "3-DConv"], "quarter": ["3-SConv", "1-Conv", "3-Conv"]},
     "deformation": {"quarter": ["5-Conv", "3-SConv", "3-SConv"], "half": ["3-SConv", "3-Conv", "7-DConv"]}}

A search adds two parts: ``objective`` (λ), and ``network`` (the sizes that belong to the cells).

A cell is named after the resolution of its features; its operations form a chain (Fan et al., TIP 2023, Fig. 2).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regcore.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Operation:
    """A convolution with LeakyReLU 0.2.

    Parameters
    ----------
    kernel : int
        Voxels along each axis.
    kind : {"Conv", "SConv", "DConv"}
        Plain, separable, or with dilation 2.

    Examples
    --------
    >>> from regcore.networks.architecture import Operation
    >>> Operation(3, "SConv").name
    '3-SConv'
    """

    kernel: int
    kind: str

    @property
    def name(self) -> str:
        return f"{self.kernel}-{self.kind}"


#: The paper's eight candidates, with its names.
CANDIDATES = {
    operation.name: operation
    for operation in (
        *(Operation(kernel, "Conv") for kernel in (1, 3, 5)),
        *(Operation(kernel, "SConv") for kernel in (3, 5)),
        *(Operation(kernel, "DConv") for kernel in (3, 5, 7)),
    )
}
#: Operations allowed in an architecture: the candidates, and that of the paper's largest hand-designed network.
OPERATIONS = {**CANDIDATES, "7-Conv": Operation(7, "Conv")}
FEATURE, DEFORMATION = "feature", "deformation"
#: Kind of cell → its cells, in the order of computation.
CELLS = {FEATURE: ("half", "quarter"), DEFORMATION: ("quarter", "half")}
EDGES = 3
#: What a search writes besides the cells: λ of the objective (Eq. 4 and 5), of which the first is a share, and the
#: settings of the network that the cells depend on.
OBJECTIVE, LAMBDAS = "objective", ("lambda1", "lambda2", "lambda3", "lambda4")
SHARE = LAMBDAS[0]
NETWORK, SIZES = "network", ("channels", "separable", "downsampling")
#: Hand-designed networks (Section IV-C4): one operation everywhere.
MANUAL = {"manual-small": "1-Conv", "manual-medium": "3-Conv", "manual-large": "7-Conv"}


@dataclass(frozen=True)
class Architecture:
    """The operations of the feature and the deformation cells of AutoReg [1]_.

    Attributes
    ----------
    cells : dict of str → dict of str → tuple of str
        Kind of cell → resolution → names of operations, in :data:`OPERATIONS`.

    References
    ----------
    .. [1] Fan, Li, Li, Wang, Liu, Luo and Huang, "Automated learning for deformable medical image registration by
       jointly optimizing network architectures and objective functions", IEEE TIP 2023, Fig. 2.

    Examples
    --------
    >>> from regcore.networks.architecture import Architecture
    >>> architecture = Architecture.uniform("3-Conv")
    >>> architecture.cells["feature"]["half"]
    ('3-Conv', '3-Conv', '3-Conv')
    >>> Architecture.parsed(architecture.as_json(), "mine.json") == architecture
    True
    """

    cells: Mapping[str, Mapping[str, tuple[str, ...]]]

    @classmethod
    def uniform(cls, operation: str) -> "Architecture":
        """One operation on all edges."""
        return cls({kind: dict.fromkeys(cells, (operation,) * EDGES) for kind, cells in CELLS.items()})

    @classmethod
    def parsed(cls, content: Any, where: str) -> "Architecture":
        """Check the content of a file or a setting.

        Raises
        ------
        InputError
            A cell, an edge or an operation is missing or unknown.
        """
        _check_keys(content, CELLS, where)
        cells = {}
        for kind, names in CELLS.items():
            _check_keys(content[kind], names, f"{where}: {kind}")
            cells[kind] = {cell: _operations(content[kind][cell], f"{where}: {kind}.{cell}") for cell in CELLS[kind]}
        return cls(cells)

    @classmethod
    def read(cls, path: str | Path) -> "Architecture":
        """Read the cells of a file; the other parts that a search writes are ignored.

        Raises
        ------
        InputError
            There is no such file, it is not JSON, or as for :meth:`parsed`.
        """
        return cls.parsed(parts_of(path)[0], str(path))

    def edges(self, kind: str) -> list[tuple[str, int, str]]:
        """(cell, number of the edge, operation) of all cells of a kind, in the order of the rows of α."""
        return [(cell, number, name) for cell, names in self.cells[kind].items() for number, name in enumerate(names)]

    def with_cells(self, kind: str, operations: list[str]) -> "Architecture":
        """The architecture with other operations in the cells of a kind, in the order of :meth:`edges`."""
        cells = {cell: tuple(operations[EDGES * place : EDGES * (place + 1)]) for place, cell in enumerate(CELLS[kind])}
        return Architecture({**self.cells, kind: cells})

    def as_json(self) -> dict[str, dict[str, list[str]]]:
        """The content that :meth:`parsed` accepts."""
        return {kind: {cell: list(names) for cell, names in cells.items()} for kind, cells in self.cells.items()}


def parts_of(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """The cells of an architecture file, and its other parts by name, both unchecked.

    Parameters
    ----------
    path : path
        A file that a search wrote, or one of the same form.

    Returns
    -------
    cells : dict
        Kind of cell → resolution → operations.
    others : dict
        ``objective`` and ``network``, where the file has them.

    Raises
    ------
    InputError
        There is no such file, or it is not JSON.

    Examples
    --------
    >>> import json
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.networks.architecture import Architecture, parts_of
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine.json")
    ...     _ = path.write_text(json.dumps({**Architecture.uniform("1-Conv").as_json(), "objective": {"lambda1": 0.5}}))
    ...     cells, others = parts_of(path)
    >>> list(cells), others
    (['feature', 'deformation'], {'objective': {'lambda1': 0.5}})
    """
    try:
        content = json.loads(Path(path).read_text())
    except (FileNotFoundError, IsADirectoryError) as error:
        known = ", ".join(MANUAL)
        raise InputError(f"{path}: no such file; give an architecture file, or one of {known}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, Mapping):
        return content, {}
    others = {name: content[name] for name in (OBJECTIVE, NETWORK) if name in content}
    return {name: value for name, value in content.items() if name not in others}, others


def _check_keys(content: Any, known: Any, where: str) -> None:
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: expected {{{', '.join(f'{key}: …' for key in known)}}}, found {content!r}")
    for key in content:
        if key not in known:
            raise InputError(f"{where}: unknown cell '{key}'{did_you_mean(str(key), known)}")
    for key in known:
        if key not in content:
            raise InputError(f"{where}: the cell '{key}' is missing")


def _operations(names: Any, where: str) -> tuple[str, ...]:
    if not isinstance(names, list | tuple) or len(names) != EDGES:
        found = len(names) if isinstance(names, list | tuple) else repr(names)
        raise InputError(f"{where}: a cell has {EDGES} edges, one operation on each; found {found}")
    for number, name in enumerate(names):
        if not isinstance(name, str) or name not in OPERATIONS:
            raise InputError(
                f"{where}, edge {number + 1}: unknown operation {name!r}{did_you_mean(str(name), OPERATIONS)}"
            )
    return tuple(names)
