"""The evaluation of trained networks on all ranks."""
