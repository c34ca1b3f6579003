"""How is a network traced? Its modules without parts, its norms and its linear layers stay modules."""

from torch import fx, nn


class Tracer(fx.Tracer):
    """The tracer of this package, for networks in evaluation mode."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        # Norms stay modules although timm builds them of parts, and linear layers although dropout may sit in one. So
        # do all modules without parts. Their training mode is then read when they run, not when they are traced.
        one = isinstance(module, nn.modules.batchnorm._NormBase | nn.Linear)
        return one or super().is_leaf_module(module, path) or not any(True for _ in module.children())
