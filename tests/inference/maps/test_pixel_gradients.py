"""The other backward pass gives the gradients of the plain one."""

import pytest
import torch
import torch.nn.functional as F

from bayesdf.inference.maps import pixel_gradients
from bayesdf.inference.maps.pixel_gradients import PixelGradients


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("padding", [0, 1, (2, 3)])
def test_gradients_of_strided_convolutions(kernel, stride, padding, monkeypatch):
    used = []
    plain = pixel_gradients._transposed
    monkeypatch.setattr(pixel_gradients, "_transposed", lambda *args: used.append(1) or plain(*args))
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 3, kernel, kernel, dtype=torch.double), torch.randn(5, dtype=torch.double)
    for sides in ((16, 16), (17, 14)):
        images = torch.randn(2, 3, *sides, dtype=torch.double, requires_grad=True)
        layer = torch.nn.Conv2d(3, 5, kernel, stride, padding).double()
        layer.weight.data, layer.bias.data = weight, bias
        with PixelGradients():
            output = layer(images)
        expected = F.conv2d(images, weight, bias, stride, padding)
        assert torch.equal(output, expected)
        cotangent = torch.randn_like(expected)
        (found,), (known,) = (torch.autograd.grad(value, images, cotangent) for value in (output, expected))
        torch.testing.assert_close(found, known)
    assert len(used) == 2


@pytest.mark.parametrize(
    "settings", [{"dilation": 2}, {"groups": 3}, {"padding": "valid", "stride": 1}, {"stride": (1, 2)}]
)
def test_others_stay_as_they_are(settings):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 6, 3, **{"stride": 2, **settings})
    images = torch.randn(2, 3, 12, 12, requires_grad=True)
    with PixelGradients():
        output = layer(images)
    assert "Convolution" in output.grad_fn.name()
