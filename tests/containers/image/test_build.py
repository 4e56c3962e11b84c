"""The targets build; what a change of the code costs.

Run with -s it tells how large the layers are.
"""

from __future__ import annotations

from tests.containers.image import images
from tests.containers.image.images import ROOT
from tests.containers.image.podman import MARKS

pytestmark = MARKS

MIB = 1 << 20
CODE = "client/layerwire/__init__.py"
LAYERS = ("base", "user, store, pip removed", "tini", "torch and what it needs", "other packages", "Layerwire")


def test_cpu(cpu):
    print(f"\n{cpu.name}, {sum(layer.size_bytes for layer in cpu.layers) / MIB:,.0f} MiB before compression:")
    for name, layer in zip(LAYERS, cpu.layers, strict=True):
        print(f"{layer.size_bytes / MIB:8,.1f} MiB  {name}")


def test_a_change_of_the_code_is_one_layer(cpu, pip_options, tmp_path):
    images.copy_context(tmp_path)
    with (tmp_path / CODE).open("a") as file:
        file.write("# changed\n")
    after = images.build(tmp_path, "cpu", pip_options, tag="changed")
    same = [old.digest == new.digest for old, new in zip(cpu.layers, after.layers, strict=True)]
    assert same == [True] * (len(same) - 1) + [False]


def test_cuda_with_the_wheel_for_the_cpu(cpu, pip_options):
    """Every instruction of the target but the gigabytes: the index that it is told has the CPU's wheel."""
    cuda = images.build(ROOT, "cuda", pip_options, "TORCH_CUDA_INDEX=https://download.pytorch.org/whl/cpu")
    new = set(cuda.config["Env"]) - set(cpu.config["Env"])
    assert any(word.startswith("NVIDIA_VISIBLE_DEVICES=") for word in new)
    assert cuda.config["Entrypoint"] == cpu.config["Entrypoint"]
