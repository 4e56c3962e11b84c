"""The README's tables, made from the code that they tell of; `python -m tests.readme_tables` writes them in.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from layerwire.v1 import layerwire_pb2, operators_pb2
from layerwire_server.config import Settings, flag
from layerwire_server.metrics import REJECTIONS
from layerwire_server.supervisor import flags

README = Path(__file__).parents[1] / "README.md"
DIMS = {"fractional_max_pool": (2, 3)}  # torch has no 1-d form of it
FAMILIES = ("pool", "unpool", "linear", "activate", "convolve", "normalize")


def operators(family: str) -> dict[str, list[str]]:
    """The operators of a family with their names in torch.nn.functional: max_pool -> max_pool1d, 2d, 3d."""
    message = operators_pb2.DESCRIPTOR.message_types_by_name[f"{family.capitalize()}Operator"]
    functions = {}
    for field in message.oneofs_by_name["operator"].fields:
        spatial = "spatial_dims" in field.message_type.fields_by_name
        dims = DIMS.get(field.name, (1, 2, 3)) if spatial else ()
        functions[field.name] = [f"{field.name}{count}d" for count in dims] or [field.name]
    return functions


def operator_table() -> list[str]:
    """RPC and functions of each family."""
    rows = ["| RPC | `torch.nn.functional` |", "|---|---|"]
    rpcs = {method.name for method in layerwire_pb2.DESCRIPTOR.services_by_name["LayerwireService"].methods}
    for family in FAMILIES:
        rpc = family.capitalize()
        assert rpc in rpcs
        names = (
            f"`{functions[0]}`" + "".join(f", `{function[-2:]}`" for function in functions[1:])
            for functions in operators(family).values()
        )
        rows.append(f"| `{rpc}` | {'; '.join(names)} |")
    return rows


def flag_table() -> list[str]:
    """Every setting of the server."""
    rows = ["| flag | default | unit | bounds | |", "|---|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = flags.default(field)
        shown = f"`{default}`" if default and isinstance(field.default, str) else default
        unit = flags.unit(field).replace("|", "\\|")
        rows.append(f"| `{flag(name)}` | {shown} | {unit} | {flags.bounds(field)} | {field.description} |")
    return rows


def rejection_table() -> list[str]:
    """Every reason to turn a call away."""
    rows = ["| `reason` | what was full or over a limit |", "|---|---|"]
    return rows + [f"| `{reason}` | {meaning} |" for role in REJECTIONS.values() for reason, meaning in role.items()]


TABLES: dict[str, Callable[[], list[str]]] = {
    "operators": operator_table,
    "flags": flag_table,
    "rejections": rejection_table,
}


def with_fresh_tables(text: str) -> str:
    """The text with its tables as the code wants them."""
    for name, table in TABLES.items():
        opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        head, _, rest = text.partition(opening)
        _, mark, tail = rest.partition(closing)
        assert mark, f"the README has no place for the table {name}"
        text = head + opening + "\n".join(table()) + "\n" + closing + tail
    return text


if __name__ == "__main__":
    README.write_text(with_fresh_tables(README.read_text()))
