"""The programs whose matrices are read, for the command line, which starts without the code that reads them."""

from typing import Literal, get_args

MatrixFormat = Literal["auto", "regcore", "itk", "niftyreg", "greedy", "fsl", "freesurfer"]
FORMATS: tuple[str, ...] = get_args(MatrixFormat)
#: Formats whose files are bare numbers.
BARE = ("fsl", "greedy", "niftyreg", "regcore")
