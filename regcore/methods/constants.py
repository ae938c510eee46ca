"""Names and words of settings that plans, experiments and methods share; without torch."""

#: Prior → its settings: the scale of λ, and what draws λ towards that.
PRIORS = {"beta": ("lambda_max", "alpha"), "gaussian": ("lambda_mean", "sigma")}
#: γ of Eq. 10 that leaves the labels alone: image and smoothness terms are 0 (Section V-G).
LABELS_ALONE = "infinity"
