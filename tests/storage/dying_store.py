"""A process that changes a store step by step and, if told so, dies at one of its writing system calls.

dying_store.py DIRECTORY steps POINT     runs STEPS; at the POINT-th call it is gone, a write half done
dying_store.py DIRECTORY names PREFIX    gives fifty names, one at a time
dying_store.py DIRECTORY move            moves two names together until it is killed
dying_store.py DIRECTORY upload DIGEST   begins an upload and holds it until its input ends
"""

import hashlib
import itertools
import os
import sys
from pathlib import Path

from layerwire_server.storage import NamedTensor, Store, StoreError, Uploads, write_safetensors

CALLS = ("write", "fsync", "replace", "unlink", "utime", "ftruncate")


def file_of(number):
    return b"".join(write_safetensors({"a": ("int64", (1,), number.to_bytes(8, "little"))}))


def digest_of(number):
    return hashlib.sha256(file_of(number)).hexdigest()


def upload(store, number):
    content = file_of(number)
    with Uploads(store).begin(digest_of(number), len(content)) as taken:
        taken.write(content[:50])
        taken.write(content[50:])
        taken.seal()
        taken.commit()


STEPS = [
    lambda store: store.put_weights([file_of(1)]),
    lambda store: store.name_weights({"a": NamedTensor(digest_of(1), "a"), "b": NamedTensor(digest_of(1), "a")}),
    lambda store: upload(store, 2),
    lambda store: store.name_weights({"a": NamedTensor(digest_of(2), "a"), "b": NamedTensor(digest_of(2), "a")}),
    lambda store: store.put_program("p", b"one", [digest_of(1)]),
    lambda store: store.put_program("p", b"two", [digest_of(2)], keep_default_version=True),
    lambda store: store.set_default_version("p", 2),
    lambda store: store.delete_program("p", 1),
    lambda store: store.delete_weights(["a"]),
    lambda store: store.sweep(0),
]


def state_of(store):
    return dict(store.weights()), dict(store.programs())


def opened(directory):
    return Store(directory, clock=lambda: 2e9)


def die_at(point):
    counted = itertools.count(1)

    def replaced(call):
        def counting(*args, **kwargs):
            if next(counted) == point:
                if call is originals["write"]:
                    call(args[0], args[1][: len(args[1]) // 2])
                os._exit(9)
            return call(*args, **kwargs)

        return counting

    originals = {name: getattr(os, name) for name in CALLS}
    for name, call in originals.items():
        setattr(os, name, replaced(call))


def main(directory, verb, argument=""):
    store = Store(Path(directory))
    if verb == "steps":
        store = opened(Path(directory))
        die_at(int(argument))
        for step in STEPS:
            step(store)
    elif verb == "names":
        for number in range(50):
            digest = store.put_weights([file_of(number)])
            store.name_weights({f"{argument}/{number}": NamedTensor(digest, "a")})
            store.sweep()
    elif verb == "move":
        for number in itertools.count():
            store.name_weights(dict.fromkeys(("a", "b"), NamedTensor(digest_of(number % 2), "a")))
            if number == 1:
                print("moving", flush=True)
    elif verb == "upload":
        try:
            with Uploads(store).begin(argument, 1000) as taken:
                taken.write(b"some")
                print("begun", flush=True)
                sys.stdin.read()
        except StoreError as error:
            print(type(error).__name__, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
