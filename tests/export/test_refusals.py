"""What can't be mapped is refused with every call, its module's path and its line."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import layerwire
from layerwire.export import UnsupportedModuleError, export


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, tokens):
        states, _ = self.lstm(self.embedding(tokens))
        return states


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(3, 2)

    def forward(self, tokens):
        return torch.cumsum(self.head(self.encoder(tokens)), 1)


class Branching(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), Branching())

    def forward(self, x):
        return self.body(x)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        return x * self.count


def refused(module, *examples):
    with pytest.raises(UnsupportedModuleError) as caught:
        export(module, *examples, name="net")
    return caught.value


def test_every_call_is_listed():
    error = refused(Tagger(), torch.zeros(2, 3, dtype=torch.long))
    assert [(call.path, call.call) for call in error.calls] == [
        ("encoder.embedding", "aten.embedding.default"),
        ("encoder.lstm", "aten.lstm.input"),
        ("", "aten.cumsum.default"),
    ]
    text = str(error)
    assert text.startswith("deploy: module net: 3 calls are not supported\n")
    assert "  encoder.lstm: aten.lstm.input" in text
    assert "  the module itself: aten.cumsum.default" in text
    assert error.calls[2].source.endswith("in forward")
    assert "test_refusals.py" in error.calls[2].source
    assert isinstance(error, layerwire.errors.InvalidArgumentError)
    assert error.field == "module"


def test_branch_on_values(capsys):
    error = refused(Nested(), torch.ones(2, 3))
    (call,) = error.calls
    assert call.path == "body.1"
    assert "def forward" not in capsys.readouterr().err
    assert call.reason == "what it does depends on the values of a tensor"
    assert "test_refusals.py" in call.source


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


CALLS = {
    "cumsum": (lambda x: x.cumsum(1), "aten.cumsum.default", ""),
    "power": (lambda x: x**3, "aten.pow.Tensor_Scalar", "an exponent other than 2"),
    "step": (lambda x: x[:, ::2], "aten.slice.Tensor", "a step other than 1"),
    "cast": (lambda x: x.double(), "aten._to_copy.default", "a change of dtype"),
    "promotion": (lambda x: x + torch.ones(4, dtype=torch.float64), "aten.add.Tensor", "operands of different dtypes"),
    "random": (lambda x: x + torch.rand(4), "aten.rand.default", ""),
    "dropout-in-training": (nn.functional.dropout, "aten.native_dropout.default", ""),
    "comparison": (lambda x: torch.where(x > 0, x, 0 * x), "aten.gt.Scalar", ""),
    "complex": (lambda x: x * torch.ones(4, dtype=torch.complex64), "aten.ones.default", "dtype complex64"),
}


@pytest.mark.parametrize("name", CALLS)
def test_call(name):
    function, call, reason = CALLS[name]
    error = refused(Calls(function), torch.ones(3, 4))
    assert error.calls[0].path == ""
    assert error.calls[0].call == call
    assert reason in error.calls[0].reason


def test_buffer_that_changes():
    error = refused(Counting(), torch.ones(2, 3))
    assert [(call.call, call.reason) for call in error.calls] == [("count", "a buffer that the call changes")]


def test_wrong_types():
    with pytest.raises(TypeError, match=r"deploy: module must be a torch.nn.Module, got int"):
        export(3)
    with pytest.raises(TypeError, match=r"deploy: example input 0 must be a tensor or an array, got list"):
        export(nn.Identity(), [1.0])


def test_the_modules_own_error_comes_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        export(nn.Linear(3, 2), torch.ones(1, 4))
