"""Names and values of settings shared by plans, experiments and methods; without torch."""

#: Prior → its settings: the scale of λ, and the strength that pulls λ towards it.
PRIORS = {"beta": ("lambda_max", "alpha"), "gaussian": ("lambda_mean", "sigma")}
#: γ of Eq. 10 with labels only: image and smoothness terms are 0 (Section V-G).
LABELS_ALONE = "infinity"
#: Default weight of the overlap of guiding labels beside each similarity of ``instance``: about the best for the
#: structures that do not guide, on training pairs of which half of the structures do.
LABEL_WEIGHTS = {"lncc": 1.0, "mse": 0.03, "nmi": 1.0, "mind": 0.03}
