"""Names to choose from that more than the configuration speaks of."""

from typing import Literal

Precision = Literal["float32", "bfloat16"]
"""Of passes through a model: bfloat16 is autocast to it, the weights trained stay in float32."""

Norm = Literal["linf", "l2", "l1"]
"""Of the ball around each image."""

Climbed = Literal["ce", "margin", "kl", "squares"]
"""Names of what attacks climb."""

MemoryFormat = Literal["contiguous", "channels_last"]
"""How weights and features lie in memory."""
