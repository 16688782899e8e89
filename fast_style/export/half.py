"""A model with float16 weights, half the size to store and to send."""

import copy

from fast_style.checkpoints.files import Model
from fast_style.errors import UserError


def halved(model: Model, *, name: str) -> Model:
    """Return the model with its weights rounded to float16 numbers; it still computes in float32.

    `name` is for messages. Raises UserError where a weight is too large.
    """
    network = copy.deepcopy(model.network)
    for weights in network.state_dict().values():
        half = weights.half()
        if half.isinf().any():
            raise UserError(f"{name}: its weights are too large for float16: leave out --half")
        weights.copy_(half)
    return Model(network=network, metadata=model.metadata)
