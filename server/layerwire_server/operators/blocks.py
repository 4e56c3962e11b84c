"""What other kernels of pools have in common: strided views of planes, and blocks of them that fit into a cache.

It knows tensors and threads; nothing of windows or of what is computed.

Each thread takes whole blocks. torch would share each of a block's five steps among OpenMP's threads, which wait for
each other at the end of each. They sleep there as soon as two threads of a process have used them, since they are more
than the cores by then: 4.1 ms for 25 MB, which take one thread 2.9, and two that have blocks of their own 1.9.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import torch

from layerwire_server.operators.operator import Kernel

_BLOCK_BYTES = 1 << 21  # of input at a time: what is made of it on the way stays in a core's cache
_MOST_THREADS = 8  # more would mostly wait for the interpreter
_THREADS = ThreadPoolExecutor(_MOST_THREADS - 1, thread_name_prefix="blocks")  # which begin with their first work


def every(tensor: torch.Tensor, axis: int, start: int, count: int, stride: int) -> torch.Tensor:
    """Elements start, start + stride, ... of an axis, as a view."""
    strides = list(tensor.stride())
    shape = list(tensor.shape)
    offset = tensor.storage_offset() + start * strides[axis]
    strides[axis] *= stride
    shape[axis] = count
    return tensor.as_strided(shape, strides, offset)


def in_blocks(
    tensor: torch.Tensor,
    dims: int,
    way: Kernel,
    eager: Kernel,
    is_plain: Callable[[torch.Tensor, torch.Tensor], bool],
) -> tuple[torch.Tensor, ...]:
    """What a way gives block by block of planes, and `eager` for blocks whose bits it can't vouch for.

    As many threads share the blocks as torch would use.

    Args:
        tensor: planes, along any number of leading axes.
        dims: axes of a plane.
        way: takes and gives planes along one leading axis.
        eager: the same, by torch's own kernel.
        is_plain: whether a way's bits are eager's, by a block and the way's first output.
    """
    if not tensor.numel():
        return eager(tensor)
    planes = tensor.reshape(-1, *tensor.shape[-dims:])
    plane_bytes = planes[0].numel() * planes.element_size()

    def run(block: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pieces = way(block)
        return pieces if is_plain(block, pieces[0]) else eager(block)

    blocks = planes.split(max(1, _BLOCK_BYTES // plane_bytes))
    outputs = run(planes) if len(blocks) == 1 else _by_threads(blocks, run, len(planes))
    return tuple(output.view(*tensor.shape[:-dims], *output.shape[1:]) for output in outputs)


def _by_threads(blocks: Sequence[torch.Tensor], run: Kernel, count: int) -> Sequence[torch.Tensor]:
    """What `run` gives for each of the blocks, one after another: `count` planes in all.

    Raises:
        Exception: whatever `run` does for one of them; by then nothing runs any more.
    """
    outputs: list[torch.Tensor] = []
    lock = threading.Lock()
    numbers = iter(range(len(blocks)))  # a range's next is one step of the interpreter
    is_inference = torch.is_inference_mode_enabled()  # which is a thread's own

    def work() -> None:
        try:
            with torch.inference_mode(is_inference):
                for number in numbers:
                    pieces = run(blocks[number])
                    with lock:
                        if not outputs:
                            outputs.extend(piece.new_empty(count, *piece.shape[1:]) for piece in pieces)
                    start = number * len(blocks[0])
                    for output, piece in zip(outputs, pieces, strict=True):
                        output[start : start + len(piece)] = piece
        finally:
            for _ in numbers:  # where this one has failed, the others are to end
                pass

    def work_alone() -> None:
        torch.set_num_threads(1)  # of this thread
        work()

    threads = torch.get_num_threads()
    others = [_THREADS.submit(work_alone) for _ in range(min(threads, len(blocks), _MOST_THREADS) - 1)]
    try:
        torch.set_num_threads(1)
        work()
    finally:
        others = [other for other in others if not other.cancel()]  # those that found a core
        wait(others)
        torch.set_num_threads(threads)
    for other in others:
        other.result()
    return outputs
