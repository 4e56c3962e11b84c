"""The methods of each client, which are those of Calls, by what a call returns: the answer, a future, an awaitable.

Type checkers read client_methods.pyi in its place, where each class has the types that it returns.
"""

from __future__ import annotations

from layerwire.calls import Calls, MapCalls

BlockingMethods = SubmittedMethods = AwaitableMethods = Calls
BlockingView = AwaitableView = Calls
MapMethods = AwaitableMapMethods = MapCalls
