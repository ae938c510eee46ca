"""Names and values of settings shared by plans, experiments and methods; without torch."""

#: Prior → its settings: the scale of λ, and the strength that pulls λ towards it.
PRIORS = {"beta": ("lambda_max", "alpha"), "gaussian": ("lambda_mean", "sigma")}
#: γ of Eq. 10 with labels only: image and smoothness terms are 0 (Section V-G).
LABELS_ALONE = "infinity"
