"""Per-node contributions to a readout, class activation maps, and pictures of both."""

from readouts.attribution.activation import class_activation
from readouts.attribution.contribution import attention_weights, contributions
from readouts.attribution.drawing import draw

__all__ = ["attention_weights", "class_activation", "contributions", "draw"]
