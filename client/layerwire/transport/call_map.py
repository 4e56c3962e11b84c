"""Makes the calls of a MapRequest one after another, and gathers their answers in the calls' order.

It knows requests and calls; neither loops nor connections.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

from layerwire.calls import MapRequest, Rows
from layerwire.transport.call import Call, Promise
from layerwire.transport.options import Options, seconds, wire
from layerwire.transport.templates import CallTemplate, call_template
from layerwire.wire import arrays

# A tensor of one call: its spec or name, its data if it has any, and what makes answers like it.
_Content: TypeAlias = tuple[arrays.Spec | str, bytes | memoryview | None, arrays.Maker | None]


class CallMap:
    """Many calls and one promise, which is kept when all have ended.

    Args:
        request: what is asked of all of them.
        options: how they are treated.
        promise: gets None.

    Raises:
        TypeError, InvalidArgumentError: what all calls share is wrong.
    """

    def __init__(self, request: MapRequest, options: Options, promise: Promise) -> None:
        one = request.request
        self._request = request
        self._options = options
        self._promise = promise
        self._timeout, self._head = options.timeout, options.wire
        if one.timeout_seconds is not None:
            self._timeout = seconds(one.timeout_seconds)
            self._head = wire(options, self._timeout)
        named = one.tensors.items() if one.of is None else [*one.of.tensors.items(), *one.tensors.items()]
        self._contents = [(name, _contents(one.function, name, value)) for name, value in named]
        self._operator = one.operator.SerializeToString()
        self._inner = (
            None if one.of is None else (one.of.family, one.of.operator.SerializeToString(), len(one.of.tensors))
        )
        self._templates: dict[Any, CallTemplate] = {}
        self._calls: deque[MapCall] = deque()
        self._open_count = request.calls
        self._results: list[Any] = [None] * request.calls
        self._has_error = False
        if not request.calls:
            promise.set_result(None)

    def call(self, row: int) -> MapCall:
        """The call of a row; raises as Call does."""
        specs: list[tuple[str, arrays.Spec | str]] = []
        data: list[bytes | memoryview] = []
        make: arrays.Maker = arrays.numpy_rows
        for name, content in self._contents:
            spec, elements, maker = content(row)
            specs.append((name, spec))
            if elements is not None:
                data.append(elements)
            if maker is not None and make is arrays.numpy_rows:
                make = maker
        draw = self._request.draw
        operator = self._operator if draw is None else draw().operator.SerializeToString()
        key = (operator, tuple(specs), make)
        template = self._templates.get(key)
        if template is None:
            one = self._request.request
            signature = (one.family, operator, key[1], self._inner)
            template = call_template((signature, self._head, one.function, one.outputs, make), self._options)
            if draw is None:
                self._templates[key] = template
        calls = self._calls
        while calls and calls[0].is_finished:
            calls.popleft()
        deadline = math.inf if self._timeout is None else time.monotonic() + self._timeout
        call = MapCall(self, row)
        call.begin(template, data, deadline, call)
        calls.append(call)
        return call

    def end(self, row: int, result: Any) -> None:
        """The answer of a row, or its error. One thread alone may tell them."""
        self._results[row] = result
        self._has_error = self._has_error or isinstance(result, Exception)
        self._open_count -= 1
        if not self._open_count and not self._promise.done():
            self._promise.set_result(None)

    def unfinished_calls(self) -> Iterable[MapCall]:
        """The calls that were made and haven't ended."""
        return [call for call in self._calls if not call.is_finished]

    def results(self) -> list[Any]:
        """The answers, once the promise is kept; raises the first error, unless errors stand among them."""
        results, self._results = self._results, []
        if self._has_error and not self._request.return_exceptions:
            raise next(result for result in results if isinstance(result, Exception))
        return results


class MapCall(Call):
    """A call of a map, and its own promise."""

    __slots__ = ("_map", "_row")

    def __init__(self, of: CallMap, row: int) -> None:
        self._map = of
        self._row = row

    def done(self) -> bool:
        """As a promise: somebody waits."""
        return False

    def set_result(self, result: Any, /) -> None:
        """As a promise: its answer."""
        self._map.end(self._row, result)

    set_exception = set_result


def _contents(function: str, name: str, value: Any) -> Callable[[int], _Content]:
    """What finds the tensor of a row."""
    if not isinstance(value, Rows):
        shared = _content(function, name, value)
        return lambda _: shared
    values = value.values
    if isinstance(values, list | tuple) or not hasattr(values, "shape"):
        return lambda row: _content(function, name, values[row])
    (dtype, shape), elements, make = arrays.spec_and_elements(function, name, values)
    spec = dtype, shape[1:]
    return lambda row: (spec, elements[row].tobytes(), make)


def _content(function: str, name: str, value: Any) -> _Content:
    if type(value) is np.ndarray and (dtype := arrays.WIRE_DTYPES.get(value.dtype)) is not None:
        return (dtype, value.shape), value.tobytes(), None
    if isinstance(value, str):
        return str(value), None, None
    return arrays.serialize(function, name, value)
