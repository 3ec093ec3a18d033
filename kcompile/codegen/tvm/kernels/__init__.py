"""Kernel templates by family: each is a frozen dataclass that writes one TensorIR function."""
