"""The priors of TM-SPR's weight volume, by name; without torch, for plans."""

#: Prior → its settings: the scale of λ, and what draws λ towards that.
PRIORS = {"beta": ("lambda_max", "alpha"), "gaussian": ("lambda_mean", "sigma")}
