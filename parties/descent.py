"""Steps of descent on a module's parameters: few calls each, however many layers there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from parties.products import LARGE, one_dnn

threshold_backward = torch.ops.aten.threshold_backward.default
Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""From a module, features (n, d) and labels (n,) to the loss that is to be lowered, a scalar."""


def cross_entropy(module: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a classifier, nats."""
    return functional.cross_entropy(module(features), labels)


def descent_of(module: nn.Module, objective: Objective) -> Descent:
    """How to descend on this objective, for a module on the device where it is trained."""
    written_out = objective is cross_entropy and is_dense(module)
    return DenseDescent(module) if written_out else Descent(module, objective)


class Descent:
    """SGD with momentum on a module's trainable parameters, in place.

    Parameters of one dtype and device become views of one vector, and so does what pulls at them.
    (Importing torch.optim costs seconds of CPU a process, more than a whole fit here: it loads the
    compiler.)

    Args:
        module: it must stay on its device as long as this is used.
        objective: what is lowered.
    """

    differentiates = True  # by autograd, which takes notes of every operation

    def __init__(self, module: nn.Module, objective: Objective) -> None:
        self.module, self._objective = module, objective
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        alike: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for place, parameter in enumerate(self._parameters):
            alike.setdefault((parameter.dtype, parameter.device), []).append(place)
        self._groups = [Group(self._parameters, places) for places in alike.values()]

    def begin(self, proximal: float) -> None:
        """Stand still, at parameters to which a pull of `proximal` leads back."""
        for group in self._groups:
            group.begin(proximal)

    def look(self, features: Tensor, targets: Tensor) -> Tensor:
        """Find the gradient of the mean loss on these examples; their losses' sum."""
        loss = self._objective(self.module, features, targets)
        gradients = torch.autograd.grad(loss, self._parameters)
        for group in self._groups:
            group.look([gradients[place] for place in group.places])
        return loss.detach() * len(targets)

    def step(self, rate: float, momentum: float, decay: float) -> None:
        """v = momentum v + g + decay w + proximal (w - w_0), then w = w - rate v."""
        for group in self._groups:
            group.step(rate, momentum, decay)


@final
class Group:
    """Parameters that are views of one vector: of the values, the gradient, the momentum."""

    def __init__(self, parameters: Sequence[nn.Parameter], places: Sequence[int]) -> None:
        own = [parameters[place] for place in places]
        self.places = places
        self._values = torch.cat([p.detach().reshape(-1) for p in own])
        self._gradient, self._scratch = (torch.empty_like(self._values) for _ in range(2))
        self._speed, self._anchor = torch.zeros_like(self._values), self._values
        # As tensors of the CPU: torch makes one of every number that it is given, at the price of
        # another operation.
        wide = torch.promote_types(self._values.dtype, torch.float32)
        self._rate, self._momentum = (torch.zeros((), dtype=wide) for _ in range(2))
        self._proximal = 0.0
        for parameter, view in zip(own, _views(self._values, own), strict=True):
            parameter.data = view
        self.gradients = _views(self._gradient, own)

    def begin(self, proximal: float) -> None:
        self._proximal = proximal
        self._speed.zero_()
        if proximal:
            self._anchor = self._values.clone()

    def look(self, gradients: Sequence[Tensor]) -> None:
        torch._foreach_copy_(self.gradients, list(gradients))

    def step(self, rate: float, momentum: float, decay: float) -> None:
        if decay:
            self._gradient.add_(torch.mul(self._values, decay, out=self._scratch))
        if self._proximal:
            torch.sub(self._values, self._anchor, out=self._scratch)
            self._gradient.add_(self._scratch.mul_(self._proximal))
        self._speed.mul_(self._momentum.fill_(momentum)).add_(self._gradient)
        self._values.sub_(torch.mul(self._speed, self._rate.fill_(rate), out=self._scratch))


@final
class DenseDescent(Descent):
    """The same for `is_dense` modules on cross-entropy, with the gradient written out.

    What a small step costs is the call of every operation and what autograd notes of it.
    """

    differentiates = False

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, cross_entropy)
        (group,) = self._groups
        layers = list(module.children())
        linear = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
        # Whether a ReLU comes before a layer.
        self._bent = [place > 0 and isinstance(layers[place - 1], nn.ReLU) for place in linear]
        weights, biases = self._parameters[::2], self._parameters[1::2]
        self._weights = [p.detach() for p in weights]
        self._turned = [w.t() for w in self._weights]
        self._biases = [p.detach() for p in biases]
        self._of_weights, self._of_biases = group.gradients[::2], group.gradients[1::2]
        near = all(weight.device.type == "cpu" for weight in self._weights)
        self._product = one_dnn() if near else None
        # By how many examples: -1 for each, and their number. There are two sizes, or three.
        self._counted: dict[int, tuple[Tensor, Tensor]] = {}

    def look(self, features: Tensor, targets: Tensor) -> Tensor:
        seen, out, count = list[Tensor](), features, features.shape[0]
        swift = [self._product if count * w.numel() >= LARGE else None for w in self._weights]
        for place, (bent, bias) in enumerate(zip(self._bent, self._biases, strict=True)):
            seen.append(out.relu_() if bent else out)
            product = swift[place]
            if product is None:
                out = torch.addmm(bias, seen[-1], self._turned[place])
            else:
                out = product(seen[-1], self._weights[place], bias)
        told, labels = torch.log_softmax(out, 1), targets.unsqueeze(1)
        lost = functional.nll_loss(told, targets, reduction="sum")
        if count not in self._counted:
            minus, number = told.new_full((count, 1), -1.0), torch.tensor(float(count))
            self._counted[count] = minus, number
        minus, number = self._counted[count]
        slope = told.exp_().scatter_add_(1, labels, minus).div_(number)
        for place in range(len(seen) - 1, -1, -1):
            torch.sum(slope, 0, out=self._of_biases[place])
            product, gradient = swift[place], self._of_weights[place]
            if product is None:
                torch.mm(slope.t(), seen[place], out=gradient)
            else:
                gradient.copy_(product(slope.t().contiguous(), seen[place].t(), None))
            if place:
                if product is None:
                    slope = torch.mm(slope, self._weights[place])
                else:
                    slope = product(slope, self._turned[place], None)
                if self._bent[place]:
                    slope = threshold_backward(slope, seen[place], 0)
        return lost


def is_dense(module: nn.Module) -> bool:
    """Whether it is linear layers with a ReLU or nothing between them, all of them trained."""
    layers = list(module.children()) if type(module) is nn.Sequential else []
    kinds = [type(layer) for layer in layers]
    return (
        bool(kinds)
        and set(kinds) <= {nn.Linear, nn.ReLU}
        and kinds[0] is kinds[-1] is nn.Linear
        and len(list(module.parameters())) == len(module.state_dict()) == 2 * kinds.count(nn.Linear)
        and all(p.requires_grad and p.dtype == torch.float32 for p in module.parameters())
    )


def _views(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Parts of a vector, in the shapes of others."""
    parts = torch.split(vector, [one.numel() for one in like])
    return [part.view(one.shape) for part, one in zip(parts, like, strict=True)]
