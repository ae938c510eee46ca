"""Hyper-TransMorph and Hyper-TM-SPR (Chen et al., 2024, Section 6.2): one TransMorph for all strengths of smoothness.

The hypernetwork of HyperMorph around TransMorph, over λ, or around TM-SPR, over the hyperparameters of its prior.  To
generate all of TransMorph's weights, a hypernetwork needs a hundred times as many of its own (over 70 GB in the
paper).  So by default it generates only the layers that compute the field and the weight volume from the encoder's
features.  ``generated`` can name every part; a short last layer (``hidden``) then bounds the memory, because it is the
rank of the matrix that generates the weights.
"""

from typing import ClassVar

from torch import Tensor

from regcore.methods.hypernetworked import Hypernetworked
from regcore.methods.settings.spr import HyperSPRSettings
from regcore.methods.settings.transmorph import HyperTransMorphSettings
from regcore.methods.spr import SPR
from regcore.methods.transmorph import TransMorph


class HyperTransMorph(Hypernetworked[TransMorph]):
    """TransMorph with a hypernetwork over λ: (1 - λ) similarity + λ smoothness.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("hypertransmorph", {"similarity": "mse", "size": "tiny", "lambda": 0.3})
    >>> method.values, method.settings.generated  # the parts of the network whose weights are generated
    ({'lambda': 0.3}, ['looks', 'decoders', 'heads'])
    """

    settings_type: ClassVar = HyperTransMorphSettings
    settings: HyperTransMorphSettings
    inner_type = TransMorph


class HyperSPR(Hypernetworked[SPR]):
    """TM-SPR with a hypernetwork over the hyperparameters of its prior.

    Examples
    --------
    >>> from regcore.methods import make_method
    >>> method = make_method("hyperspr", {"size": "tiny"})
    >>> method.ranges
    {'lambda_max': [0, 5], 'alpha': [0, 0.2]}
    """

    settings_type: ClassVar = HyperSPRSettings
    settings: HyperSPRSettings
    inner_type = SPR

    def weights(self, flow: Tensor, image: Tensor) -> Tensor:
        """w(p), as for :meth:`SPR.weights`."""
        return self.inner.weights(flow, image)
