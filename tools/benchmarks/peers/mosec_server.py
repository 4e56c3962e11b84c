"""mosec with one function and one worker: `python -m tools.benchmarks.peers.mosec_server`, in the peers' environment.

Its variables: PEER_FUNCTION, PEER_BATCH (1 for no batching), PEER_WAIT_MS; mosec's own for the rest.
"""

from __future__ import annotations

import os

from mosec import Server, Worker

from tools.benchmarks.peers import functions

FUNCTION = os.environ["PEER_FUNCTION"]
BATCH, WAIT_MS = int(os.environ["PEER_BATCH"]), int(os.environ["PEER_WAIT_MS"])


class CallWorker(Worker):
    """Calls the function for each request."""

    def __init__(self):
        functions.set_threads(FUNCTION)

    def deserialize(self, data):
        return data

    def serialize(self, data):
        return data

    def forward(self, data):
        return functions.answers(FUNCTION, [data])[0]


class BatchWorker(CallWorker):
    """Calls it for several."""

    def forward(self, data):
        return functions.answers(FUNCTION, data)


if __name__ == "__main__":
    server = Server()
    if BATCH == 1:
        server.append_worker(CallWorker)
    else:
        server.append_worker(BatchWorker, max_batch_size=BATCH, max_wait_time=WAIT_MS)
    server.run()
