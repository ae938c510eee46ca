"""The experiments of the papers, as variants of a method that a study trains, registers with and scores.

Nothing here runs anything: an experiment is a list of named method settings, which the workflow's rules
treat like the methods of the study, and :mod:`regcore.reporting` makes tables and figures of their scores.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Experiments:
    """What the experiments of one paper need.

    Parameters
    ----------
    variants : dict of str → dict
        Settings by name, with the key ``method``.
    scored : dict of str → list of str
        Experiment → entries of the study (variants or methods) whose test scores it shows.
    trained : dict of str → list of str
        Experiment → entries whose models alone it needs (validation and training scores).
    sweeps : dict of str → list of str
        Name → entries that are scored together on the common grid, hypernetworks at many hyperparameters.
    hyperparameters : dict of str → list of str
        Name of a sweep → what its networks differ in.
    swept : dict of str → list of str
        Experiment → the sweeps that it shows.
    sweep_splits : tuple of str
        Pairs that sweeps score: those of which an experiment shows something.
    features : dict of str → list of str
        Experiment → entries of whose networks it shows how much their features vary with contrast.
    drawn : dict of str → list of str
        Experiment → entries of whose fields it shows what they do to images.
    weighed : dict of str → list of str
        Experiment → entries of whose networks it shows the weight volumes.
    searched : dict of str → list of str
        Experiment → entries of whose searches for cells it shows what they found, and how.
    """

    variants: dict[str, dict] = field(default_factory=dict)
    scored: dict[str, list[str]] = field(default_factory=dict)
    trained: dict[str, list[str]] = field(default_factory=dict)
    sweeps: dict[str, list[str]] = field(default_factory=dict)
    hyperparameters: dict[str, list[str]] = field(default_factory=dict)
    swept: dict[str, list[str]] = field(default_factory=dict)
    sweep_splits: tuple[str, ...] = ("validation", "test")
    features: dict[str, list[str]] = field(default_factory=dict)
    drawn: dict[str, list[str]] = field(default_factory=dict)
    weighed: dict[str, list[str]] = field(default_factory=dict)
    searched: dict[str, list[str]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The experiments."""
        return sorted({*self.scored, *self.trained, *self.swept, *self.features, *self.weighed, *self.searched})
