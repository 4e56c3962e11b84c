"""`layerwire put-weights ADDRESS NAME FILE`: a tensor gets a name on the server.

It knows .npy files and PutWeights.
"""

from __future__ import annotations

import click

from layerwire.cli import connection
from layerwire.cli.parameters import load_npy


@click.command()
@connection.address
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False))
@connection.timeout(30.0)
def command(address: str, name: str, file: str, timeout: float) -> None:
    """Give a tensor a name on a server.

    FILE is a .npy file. Calls use the tensor by its name: `layerwire call ... --weight name:NAME`.
    """
    array = load_npy(file)
    with connection.client(address, timeout) as client:
        client.put_weights(name, array)
    click.echo(f"{name}: {array.dtype.name} {list(array.shape)}")
