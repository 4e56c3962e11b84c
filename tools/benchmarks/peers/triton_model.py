"""A function as a model of Triton's Python backend, with dynamic batching; imported by a model.py of three lines."""

from __future__ import annotations

import numpy as np
import torch
import triton_python_backend_utils as triton

from tools.benchmarks.peers.functions import FUNCTIONS, set_threads


class Model:
    """Joins the inputs of all requests, calls the function once, takes the outputs apart."""

    name: str

    def initialize(self, args):
        set_threads(self.name)

    def execute(self, requests):
        function = FUNCTIONS[self.name]
        inputs = [triton.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        with torch.inference_mode():
            joint = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
            outputs = [output.numpy() for output in function.run(torch.from_numpy(joint))]
        responses, start = [], 0
        for one in inputs:
            rows = slice(start, start := start + len(one))
            tensors = [triton.Tensor(f"y{number}", output[rows]) for number, output in enumerate(outputs)]
            responses.append(triton.InferenceResponse(output_tensors=tensors))
        return responses
