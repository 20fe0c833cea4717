"""How robust a network is: quick counts while it trains, and thorough attacks afterwards.

Knows no communicator: the caller shares out the images and adds what the ranks found.
"""

from mpiadv.evaluation.accuracy import Counts, attack_images, evaluate, frozen

__all__ = ["Counts", "attack_images", "evaluate", "frozen"]
