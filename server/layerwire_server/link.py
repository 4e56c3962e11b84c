"""Frames of calls cross from gateway to worker and back: a struct header and raw bytes over a unix socket. No pickle.

It knows neither gRPC nor torch, and nothing of what the bytes mean. Large payloads are written once, into memory that
both ends have mapped, and the socket carries where they lie; where that can't be had, they go by the socket.

Clocks: `arrived` and `deadline` are seconds of CLOCK_MONOTONIC, which all processes of a host share.
"""

from __future__ import annotations

import asyncio
import enum
import math
import select
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, TypeAlias

from layerwire.wire.shared_memory import SharedMemoryError
from layerwire_server.link_memory import LinkMemory

# magic, kind, flags, family, (pad), ordinals, payload bytes, frame, stream, arrived, deadline; then crc32 of all that
_FIELDS = struct.Struct("<4sBBBxIQQQdd")
_CRC = struct.Struct("<I")
_HEADER = struct.Struct(_FIELDS.format + "I")
_Header: TypeAlias = tuple[bytes, int, int, int, int, int, int, int, float, float, int]
HEADER_BYTES = _HEADER.size
_MAGIC = b"LWL1"
_START = struct.Struct("<Q")
SPAN = struct.Struct("<QQ")  # where in its file a tensor's bytes begin and end
MAX_CALLS = 4096  # calls of one frame; an ordinal has room for a mark above that
_READ_BYTES = 262144  # about what a unix socket holds
_JOIN_BYTES = 65536  # below, one copy costs less than a system call with many pieces
LARGE_BYTES = 262144  # from here on payloads go by shared memory: what a socket holds goes by one system call
_MEMORY_PAYLOADS = 4  # of the largest size that may be lent at once
QUARANTINED = 0x8000  # mark on an ordinal of a request: don't run it, answer INTERNAL


class Kind(enum.IntEnum):
    """What a frame is. The first block goes from gateway to worker, the second back, the third both ways."""

    CALLS = 1  # payload: Calls as a StreamRequest; answered by ANSWERS until one has LAST
    UNARY = 2  # payload: the request of `family`; answered by one ANSWERS with LAST
    CANCEL_FRAME = 3  # no answer to `frame` is wanted any more, and none comes after
    CANCEL_CALLS = 4  # payload: a StreamRequest with a Cancellation, of `stream`; the calls are answered CANCELLED
    CANARY = 5  # asks for a canary call; answered by CANARY_RESULT with the same frame number
    NAMES_CHANGED = 6  # the store's names are others now: read them again; answered by ANSWERS with LAST

    HELLO = 16  # first frame of a worker; payload: JSON about it
    ANSWERS = 17  # payload: ordinals answered, then a StreamResponse, a unary response, or (ERROR) a Status
    STARTED = 18  # `ordinals` holds the ordinal of the call of an ISOLATE frame that runs now
    CANARY_RESULT = 19  # payload: JSON; ERROR if the canary's answer was wrong

    OFFER_MEMORY = 32  # payload: where the sender's memory is; owners of links never see this, nor what follows
    SHARE_MEMORY = 33  # the receiver of an offer can read it
    RELEASE_MEMORY = 34  # payload: 8 bytes, where a range begins that the receiver of this may use again


class Flag(enum.IntFlag):
    """Marks on a frame."""

    NONE = 0
    LAST = 1  # no further answer to this frame comes
    ERROR = 2  # the payload is a serialized google.rpc.Status
    ISOLATE = 4  # a worker died with this frame: run its calls one at a time, alone, each announced by STARTED
    LENT = 8  # the payload is a RANGE of the sender's memory; links alone see it


class Family(enum.IntEnum):
    """The RPC a unary frame came by."""

    NONE = 0
    POOL = 1
    UNPOOL = 2
    LINEAR = 3
    ACTIVATE = 4
    CONVOLVE = 5
    NORMALIZE = 6
    ESTIMATE = 7
    PUT_WEIGHTS = 8
    RUN = 9
    DIFFERENTIATE = 10
    CHECK_UPLOAD = 11  # payload: an UploadHeader; answered by an UploadResponse if the sealed file is safetensors
    NAME_WEIGHTS = 12
    LIST_WEIGHTS = 13
    FIND_WEIGHTS = 14  # payload: a GetWeightsRequest; answered by a GetWeightsResponse whose data are a SPAN
    DELETE_WEIGHTS = 15
    PUT_PROGRAM = 16
    LIST_PROGRAMS = 17
    GET_PROGRAM = 18
    SET_DEFAULT_VERSION = 19
    DELETE_PROGRAM = 20
    INFER = 21  # payload: an inference.ModelInferRequest
    MODEL_READY = 22  # of the Open Inference Protocol too, as are those below
    MODEL_METADATA = 23
    MODEL_CONFIG = 24
    MODEL_STATISTICS = 25  # this worker's own
    REPOSITORY_INDEX = 26
    LIST_KERNELS = 27


# By number: calling an enum, or its operators, takes as long as all else that is done to a header.
_KINDS: dict[int, Kind] = {kind.value: kind for kind in Kind}
_FLAGS: dict[int, Flag] = {flags: Flag(flags) for flags in range(2 * Flag.LENT)}
_FAMILIES: dict[int, Family] = {family.value: family for family in Family}
_LENT = int(Flag.LENT)


def request_id(number: int) -> str:
    """A frame's or stream's number as people see it in logs and errors, the same in gateway and worker."""
    return f"{number:016x}"


class Frame(NamedTuple):
    """A frame. `ordinals` are positions of calls in the frame's message.

    In CALLS and UNARY they are those not to run again: answered before, or marked QUARANTINED. In ANSWERS they are
    those answered here; in STARTED the one that runs now, none while the message is being decoded. In ANSWERS `arrived`
    is no time: it is how many seconds after its arrival the answered frame was read by the worker.
    """

    kind: Kind
    frame: int = 0
    payload: bytes | memoryview = b""
    flags: Flag = Flag.NONE
    family: Family = Family.NONE
    ordinals: tuple[int, ...] = ()
    stream: int = 0
    arrived: float = 0.0
    deadline: float = math.inf


class LinkError(Exception):
    """The peer sent what is no frame; the connection is of no further use."""


def encode(frame: Frame, body: Iterable[bytes | memoryview] | None = None) -> list[bytes | memoryview]:
    """The frame's bytes in pieces, payload uncopied. `body` is the payload in pieces, in place of frame.payload."""
    pieces = [frame.payload] if body is None else list(body)
    return [_head(frame, sum(map(len, pieces))), *pieces]


def _head(frame: Frame, nbytes: int) -> bytes:
    kind, number, _, flags, family, ordinals, stream, arrived, deadline = frame
    count = len(ordinals)
    length = 2 * count + nbytes
    fields = _FIELDS.pack(_MAGIC, kind, flags, family, count, length, number, stream, arrived, deadline)
    head = fields + _CRC.pack(zlib.crc32(fields))
    return head + struct.pack(f"<{count}H", *ordinals) if count else head


class Decoder:
    """Turns bytes as they arrive into frames. Bytes of a large payload are read where they stay.

    Args:
        max_payload_bytes: largest payload that is accepted.
    """

    def __init__(self, max_payload_bytes: int) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._small = bytearray(_READ_BYTES)  # headers, and frames that fit
        self._small_view = memoryview(self._small)
        self._small_bytes = 0
        self._large = bytearray()  # ordinals and payload of one frame that doesn't
        self._large_bytes = 0
        self._large_header: _Header | None = None

    def room(self) -> memoryview:
        """Where the next bytes are to be put, before `advance`; never empty."""
        if self._large_header is not None:
            return memoryview(self._large)[self._large_bytes :]
        return self._small_view[self._small_bytes :] if self._small_bytes else self._small_view

    def advance(self, nbytes: int) -> list[Frame]:
        """The frames that are complete with so many bytes in `room`.

        Raises:
            LinkError: wrong magic, checksum, kind or length.
        """
        if self._large_header is not None:
            self._large_bytes += nbytes
            if self._large_bytes < len(self._large):
                return []
            header, self._large_header = self._large_header, None
            body, self._large = self._large, bytearray()
            return [_frame(header, memoryview(body).toreadonly())]
        self._small_bytes += nbytes
        return self._take_small()

    def feed(self, data: bytes) -> list[Frame]:
        """As `room` and `advance`, for bytes that are there already."""
        frames: list[Frame] = []
        start = 0
        while start < len(data):
            room = self.room()
            size = min(len(room), len(data) - start)
            room[:size] = data[start : start + size]
            frames += self.advance(size)
            start += size
        return frames

    def _take_small(self) -> list[Frame]:
        frames: list[Frame] = []
        view, offset, end = self._small_view, 0, self._small_bytes
        while end - offset >= HEADER_BYTES:
            header = self._header(offset)
            start, length = offset + HEADER_BYTES, header[5]
            if HEADER_BYTES + length > _READ_BYTES:
                self._large = bytearray(length)
                self._large_bytes = end - start
                self._large[: self._large_bytes] = view[start:end]
                self._large_header = header
                offset = end
                break
            if end - start < length:
                break
            frames.append(_frame(header, bytes(view[start : start + length])))
            offset = start + length
        if offset < end:
            self._small[: end - offset] = self._small[offset:end]
        self._small_bytes = end - offset
        return frames

    def _header(self, offset: int) -> _Header:
        header: _Header = _HEADER.unpack_from(self._small, offset)
        magic, kind, flags, family, count, length, *_, crc = header
        if crc != zlib.crc32(self._small_view[offset : offset + _FIELDS.size]):
            raise LinkError("checksum of the header is wrong")
        if magic != _MAGIC or count > MAX_CALLS or not 2 * count <= length <= self._max_payload_bytes + 2 * count:
            raise LinkError("magic, ordinals or length are out of range")
        if kind not in _KINDS or flags not in _FLAGS or family not in _FAMILIES:
            raise LinkError(f"kind {kind}, flags {flags} or family {family} is unknown")
        return header


def _frame(header: _Header, body: bytes | memoryview) -> Frame:
    _, kind, flags, family, count, _, number, stream, arrived, deadline, _ = header
    ordinals: tuple[int, ...] = ()
    if count:
        ordinals, body = struct.unpack_from(f"<{count}H", body), body[2 * count :]
    return Frame(_KINDS[kind], number, body, _FLAGS[flags], _FAMILIES[family], ordinals, stream, arrived, deadline)


class Receiver(Protocol):
    """What a link calls on its owner."""

    def on_connect(self, link: Link) -> None:
        """The link is up."""

    def on_frame(self, link: Link, frame: Frame) -> None:
        """A frame came."""

    def on_disconnect(self, link: Link, error: Exception | None) -> None:
        """The link is gone; no call follows."""


class Link(asyncio.BufferedProtocol):
    """One end of a connection between a gateway and a worker.

    Args:
        receiver: its owner.
        max_payload_bytes: largest payload that is accepted.
        count_copies: called with the bytes that are copied to get a large payload across: once by shared memory, not at
            all from a `room`, twice by the socket.
    """

    def __init__(
        self, receiver: Receiver, max_payload_bytes: int, count_copies: Callable[[int], None] = lambda _: None
    ) -> None:
        self._receiver = receiver
        self._max_payload_bytes = max_payload_bytes
        self._count_copies = count_copies
        self._decoder = Decoder(max_payload_bytes)
        self._error: Exception | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._memory = LinkMemory(self._loop, _MEMORY_PAYLOADS * max_payload_bytes)
        self._corked_pieces: list[bytes | memoryview] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is up."""
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "writelines")  # uvloop has its own
        self._transport = transport  # type: ignore[assignment]
        self._receiver.on_connect(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to put what comes."""
        return self._decoder.room()

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: bytes came."""
        try:
            for frame in self._decoder.advance(nbytes):
                if frame.kind >= Kind.OFFER_MEMORY:
                    self._on_memory(frame)
                else:
                    self._receiver.on_frame(self, self._with_payload(frame) if int(frame.flags) & _LENT else frame)
        except (LinkError, SharedMemoryError) as error:
            self._error = LinkError(str(error))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the socket is gone."""
        self._transport = None
        self._memory.close()
        self._receiver.on_disconnect(self, self._error or exc)

    def send(self, frame: Frame, body: Iterable[bytes | memoryview] | None = None) -> None:
        """Sends a frame; on a link that is gone, nothing happens, since `on_disconnect` says so to the owner."""
        if self._transport is None:
            return
        pieces = [frame.payload] if body is None else list(body)
        nbytes = sum(map(len, pieces))
        if nbytes >= LARGE_BYTES:
            self.offer_memory()
            loan = self._memory.lend(pieces, nbytes)
            self._count_copies(2 * nbytes if loan is None else loan[1])
            if loan is not None:
                frame = frame._replace(flags=frame.flags | Flag.LENT)
                pieces, nbytes = [loan[0]], len(loan[0])
        pieces.insert(0, _head(frame, nbytes))
        if self._corked_pieces is not None:
            self._corked_pieces += pieces
        else:
            self._write(pieces, nbytes)

    def cork(self) -> None:
        """Keeps frames until `uncork`, which makes one system call for many."""
        self._corked_pieces = []

    def uncork(self) -> None:
        """Hands them to the socket."""
        pieces, self._corked_pieces = self._corked_pieces, None
        if pieces:
            self._write(pieces, sum(map(len, pieces)))

    def _write(self, pieces: list[bytes | memoryview], nbytes: int) -> None:
        if self._transport is None:
            return
        if nbytes <= _JOIN_BYTES:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)

    def is_up(self) -> bool:
        """Whether the peer hasn't closed the link so far, though that may not have been noticed here."""
        if self._transport is None or self._transport.is_closing():
            return False
        (poll := select.poll()).register(self._transport.get_extra_info("socket"), 0)  # of a hang-up it always tells
        return not poll.poll(0)

    def unsent_bytes(self) -> int:
        """Bytes that the socket hasn't taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def offer_memory(self) -> None:
        """Offers the peer memory for large payloads; else the first does so, and goes by the socket itself."""
        offer = None if self._transport is None else self._memory.first_offer()
        if offer is not None:
            self.send(Frame(Kind.OFFER_MEMORY, payload=offer))

    def room(self, nbytes: int) -> memoryview | None:
        """Where a large payload may be written that is to be sent; None if there is no such room now."""
        self.offer_memory()
        return self._memory.room(nbytes) if nbytes >= LARGE_BYTES else None

    def close(self) -> None:
        """Ends the link at once."""
        if self._transport is not None:
            self._transport.abort()

    # shared memory

    def _with_payload(self, frame: Frame) -> Frame:
        payload = self._memory.payload(frame.payload, self._max_payload_bytes, self._release_later)
        return frame._replace(payload=payload, flags=frame.flags & ~Flag.LENT)

    def _on_memory(self, frame: Frame) -> None:
        if frame.kind is Kind.OFFER_MEMORY:
            if self._memory.open_peers(frame.payload):  # else payloads go on coming by the socket
                self.send(Frame(Kind.SHARE_MEMORY))
        elif frame.kind is Kind.SHARE_MEMORY:
            self._memory.share()
        elif len(frame.payload) == _START.size:
            self._memory.release(*_START.unpack(frame.payload))
        else:
            raise LinkError("no range of memory")

    def _release_later(self, start: int) -> None:
        """From any thread: nothing refers to a payload any more."""
        self._loop.call_soon_threadsafe(self.send, Frame(Kind.RELEASE_MEMORY, payload=_START.pack(start)))
