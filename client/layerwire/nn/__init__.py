"""torch.nn with a server behind it: modules, autograd functions, and `remote`, which converts a whole network.

It needs torch, which `import layerwire` doesn't; neither messages nor channels are its business.

    net = nn.Sequential(RemoteConv2d(1, 6, 5, client=lw), RemoteReLU(client=lw), RemoteMaxPool2d(2, client=lw))
    net = layerwire.nn.remote(net, lw)    # the same of a local network, sharing its parameters

There is a module for every class of torch.nn that an operator of the server computes, with that class's constructor and
`client` besides, as a keyword: which server computes is said where a module is made, never kept globally. All are
differentiable by inputs and parameters, forward and backward being a call each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerwire.autograd import Functional as Functional
from layerwire.nn.activations import *  # noqa: F403  # every twin of the four modules, named once, where it is defined
from layerwire.nn.convert import remote as remote
from layerwire.nn.module import TWINS
from layerwire.nn.module import Remote as Remote
from layerwire.nn.normalizations import *  # noqa: F403
from layerwire.nn.pools import *  # noqa: F403
from layerwire.nn.products import *  # noqa: F403

if not TYPE_CHECKING:  # type checkers want a list spelled out, and without one take all of the imports above
    __all__ = ["Functional", "Remote", "remote", *sorted(twin.__name__ for twin in TWINS.values())]  # noqa: PLE0604
