"""Calls of programs and of gradients as the worker decodes them: what runs, and every way of getting one wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from layerwire.errors import InvalidArgumentError, LayerwireError, NotFoundError
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import operators_pb2 as operators
from layerwire.v1 import program_pb2
from layerwire.wire import arrays
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.errors import OverLimitError
from layerwire_server.programs import variant
from layerwire_server.worker import plan
from layerwire_server.worker.plan import CallLimits, Plans
from tests.operators.local import message_of
from tests.programs.local import REQUESTS, Worker

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
BIAS = np.array([1, 2, 3], np.float32)
RELU = operators.ActivateOperator(relu=operators.Relu())
ADD = program_pb2.TransformOperator(add=program_pb2.Add())


@pytest.fixture(scope="module")
def worker(tmp_path_factory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("store"))
    yield worker
    worker.close()


def node(name: str, operator, /, **inputs: str) -> program_pb2.Node:
    """A node that reads values by field."""
    family = "transform" if isinstance(operator, program_pb2.TransformOperator) else None
    family = family or type(operator).__name__.removesuffix("Operator").lower()
    read = [program_pb2.NodeInput(field=field, value=value) for field, value in inputs.items()]
    return program_pb2.Node(name=name, inputs=read, **{family: operator})


def constant(name: str, *values, dtype: str = "float32") -> program_pb2.Constant:
    return program_pb2.Constant(name=name, tensor=arrays.from_numpy(np.array(values, dtype)))


def program(*nodes: program_pb2.Node, output: str = "", constants=(), shape=(-1, 3), dtype=1) -> program_pb2.Program:
    """One input x; its output y is what the last node gives."""
    return program_pb2.Program(
        inputs=[program_pb2.ProgramInput(name="x", dtype=dtype, shape=shape)],
        constants=constants,
        nodes=nodes,
        outputs=[program_pb2.ProgramOutput(name="y", value=output or nodes[-1].name)],
    )


# y = relu(x + b)
SUM = program(node("sum", ADD, input="x", other="b"), node("relu", RELU, input="sum"), constants=[constant("b", *BIAS)])


def test_a_program_runs(worker: Worker) -> None:
    outputs = worker.run(SUM, {"x": X}, intermediates=["sum"])
    np.testing.assert_array_equal(outputs["sum"], X + BIAS)
    np.testing.assert_array_equal(outputs["y"], np.maximum(X + BIAS, 0))


def test_a_name_is_a_version_of_it(worker: Worker) -> None:
    other = program(node("relu", RELU, input="x"))
    for one in (SUM, other):
        worker.put("net", one)
    calls = {version: worker.decode(REQUESTS.run("net", {"x": X}, version=version)) for version in (1, 2, None)}
    assert [call.plan.operator.version for call in calls.values()] == [1, 2, 2]
    assert calls[2].key == calls[None].key != calls[1].key
    np.testing.assert_array_equal(worker.answers([calls[2]])[0]["y"], np.maximum(X, 0))


def test_calls_of_one_program_share_a_lane_and_deterministic_ones_run_alone(worker: Worker) -> None:
    plain = [worker.decode(REQUESTS.run(SUM, {"x": x})) for x in (X, X[:1])]
    assert plain[0].key == plain[1].key
    assert plain[0].key.merge.value == "rows"
    with_sum = worker.decode(REQUESTS.run(SUM, {"x": X}, intermediates=["sum"]))
    assert with_sum.key != plain[0].key
    message = message_of(REQUESTS.run(SUM, {"x": X}))
    message.run.options.deterministic = True
    call = worker.decode(message)
    assert call.key.merge.value == "alone"
    np.testing.assert_array_equal(worker.answers([call])[0]["y"], worker.answers(plain)[0]["y"])


def run_of(one: program_pb2.Program, inputs=None, **keywords) -> Callable[[], pb.Call]:
    return lambda: message_of(REQUESTS.run(one, {"x": X} if inputs is None else inputs, **keywords))


def error_of(worker: Worker, message: Callable[[], pb.Call]) -> LayerwireError:
    with pytest.raises(LayerwireError) as caught:
        worker.decode(message())
    return caught.value


BAD_CALLS = {
    "no-program": (lambda: pb.Call(run=pb.RunRequest()), "program", "is required"),
    "input-missing": (run_of(SUM, {}), "x", "is required"),
    "input-unknown": (run_of(SUM, {"x": X, "z": X}), "inputs", "must be among x, got 'z'"),
    "input-of-another-dtype": (run_of(SUM, {"x": X.astype(np.float64)}), "x", "must have dtype float32, got float64"),
    "input-of-another-shape": (run_of(SUM, {"x": X.T.copy()}), "x", r"must have shape \[-1, 3\], got \[3, 2\]"),
    "input-of-another-rank": (run_of(SUM, {"x": X[0]}), "x", r"must have shape \[-1, 3\], got \[3\]"),
    "input-without-axes": (run_of(SUM, {"x": np.float32(1)}), "x", r"must have shape \[-1, 3\], got \[\]"),
    "intermediate-unknown": (run_of(SUM, intermediates=["none"]), "intermediates", "got 'none'"),
    "intermediate-is-output": (run_of(SUM, intermediates=["y"]), "intermediates", "got 'y'"),
    "intermediate-twice": (run_of(SUM, intermediates=["sum", "sum"]), "intermediates", "each once, got 2"),
    "version-of-a-definition": (run_of(SUM, version=1), "version", "goes with a program's name, got 1"),
    "too-many-intermediates": (run_of(SUM, intermediates=map(str, range(65))), "intermediates", "up to 64.*got 65"),
}


FIVE = program(node("relu", RELU, input="x"), shape=(-1, 1 << 18))  # a row is 1 MiB, and comes out five times
FIVE.outputs.extend(program_pb2.ProgramOutput(name=f"y{i}", value="relu") for i in range(4))
FIVE_FIXED = program_pb2.Program.FromString(FIVE.SerializeToString())
FIVE_FIXED.inputs[0].shape[0] = 15


@pytest.mark.parametrize("of", [FIVE, FIVE_FIXED], ids=["batched", "alone"])
def test_outputs_count_together(worker: Worker, of: program_pb2.Program) -> None:
    error = error_of(worker, run_of(of, {"x": np.zeros((15, 1 << 18), np.float32)}))
    assert isinstance(error, OverLimitError)
    assert error.reason == "output_bytes"
    assert "over the server's --max-output-bytes" in error.message


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_are_named(worker: Worker, case: str) -> None:
    message, field, rule = BAD_CALLS[case]
    error = error_of(worker, message)
    assert isinstance(error, InvalidArgumentError)
    assert error.field == field
    with pytest.raises(LayerwireError, match=rule):
        raise error


def test_unknown_names_are_not_found(worker: Worker) -> None:
    worker.put("known", SUM)
    unknown = error_of(worker, lambda: message_of(REQUESTS.run("unknown", {"x": X})))
    assert isinstance(unknown, NotFoundError) and "unknown" in str(unknown)
    version = error_of(worker, lambda: message_of(REQUESTS.run("known", {"x": X}, version=7)))
    assert isinstance(version, NotFoundError) and "7" in str(version)
    unknown = program(node("sum", ADD, input="x", other="b"))
    unknown.constants.add(name="b").tensor.name = "no/such/weights"
    weights = error_of(worker, run_of(unknown))
    assert isinstance(weights, NotFoundError) and "no/such/weights" in str(weights)


def chain(count: int) -> program_pb2.Program:
    one = program(node("n0", RELU, input="x"))
    one.nodes.extend(node(f"n{index}", RELU, input=f"n{index - 1}") for index in range(1, count))
    one.outputs[0].value = f"n{count - 1}"
    return one


def conv(**fields) -> operators.ConvolveOperator:
    return operators.ConvolveOperator(conv=operators.Conv(spatial_dims=2, **fields))


def pad(*sizes: int) -> program_pb2.TransformOperator:
    return program_pb2.TransformOperator(pad=program_pb2.Pad(pad=sizes))


def reshape(*shape: int) -> program_pb2.TransformOperator:
    return program_pb2.TransformOperator(reshape=program_pb2.Reshape(shape=shape))


BAD_PROGRAMS = {
    "empty": (program_pb2.Program(), "inputs", "must be 1 to 64, got 0"),
    "100000-nodes": (chain(100_000), "nodes", "must be 1 to 4096, got 100000"),
    "node-repeated": (program(node("a", RELU, input="x"), node("a", RELU, input="x")), "a", "is defined twice"),
    "node-named-as-the-input": (program(node("x", RELU, input="x")), "x", "is defined twice"),
    "nodes-without-a-name": (program(node("", RELU, input="x"), output="x"), "name", "1 to 200 characters"),
    "cycle": (
        program(node("a", ADD, input="x", other="b"), node("b", RELU, input="a")),
        "a",
        "stands in a cycle",
    ),
    "reads-itself": (program(node("a", ADD, input="x", other="a")), "a", "stands in a cycle"),
    "unknown-value": (program(node("a", RELU, input="none")), "a", "input is 'none', which is no value"),
    "unknown-field": (program(node("a", RELU, input="x", weight="x")), "a", "weight is not taken"),
    "input-left-out": (program(node("a", ADD, input="x")), "a", "add: other is required"),
    "no-operator": (program(program_pb2.Node(name="a"), output="x"), "a", "operator"),
    "unknown-output": (program(node("a", RELU, input="x"), output="none"), "y", "which is no value"),
    "bad-parameter": (program(node("a", conv(groups=0), input="x", weight="x")), "a", "groups must be positive, got 0"),
    "shapes-that-differ": (
        program(node("a", RELU, input="x"), node("b", ADD, input="a", other="c"), constants=[constant("c", 1, 2)]),
        "b",
        "add: other must broadcast with [2, 3] of input, got [2]",
    ),
    "dtypes-that-differ": (
        program(node("b", ADD, input="x", other="c"), constants=[constant("c", 1, 2, 3, dtype="float64")]),
        "b",
        "other must have input's dtype float32, got float64",
    ),
    "a-shape-that-overflows": (
        program(node("a", pad(2**40, 2**40, 2**40, 2**40), input="x")),
        "a",
        "pad: pad must be from -2147483647 to 2147483647",
    ),
    "a-shape-past-64-bits": (
        program(node("a", reshape(2**62, 2**62, 4), input="x")),
        "a",
        "reshape: shape must hold the 6 elements",
    ),
    "an-input-that-overflows": (
        program(node("a", RELU, input="x"), shape=(2**40, 2**40)),
        "x",
        "must have fewer elements",
    ),
    "a-value-over-the-limit": (program(node("a", pad(0, 0, 2**26, 0), input="x")), "a", "over the server's"),
    "an-input-without-dtype": (program(node("a", RELU, input="x"), dtype=0), "x", "must have a dtype"),
    "a-negative-size": (program(node("a", RELU, input="x"), shape=(-1, -3)), "x", "sizes from 0 to 1099511627776"),
    "indices-that-are-weights": (
        program(
            node(
                "a",
                operators.UnpoolOperator(max_unpool=operators.MaxUnpool(spatial_dims=1, kernel_size=[2])),
                input="x",
                indices="i",
            ),
            constants=[constant("i", [0, 2, 4], [0, 2, 99], dtype="int64")],
            shape=(2, 3),
        ),
        "a",
        "indices must be 0 to 5, got 99 at [1, 2]",
    ),
}


@pytest.mark.parametrize("case", BAD_PROGRAMS)
def test_bad_programs_name_the_node(worker: Worker, case: str) -> None:
    one, field, rule = BAD_PROGRAMS[case]
    start = time.process_time()
    error = error_of(worker, run_of(one))
    assert time.process_time() - start < 5
    assert isinstance(error, InvalidArgumentError), error
    assert error.field == field, error
    assert rule in str(error)
    assert worker.run(SUM, {"x": X})["y"].shape == (2, 3)


def test_as_many_nodes_as_are_allowed_run(worker: Worker) -> None:
    np.testing.assert_array_equal(worker.run(chain(4096), {"x": X})["y"], np.maximum(X, 0))


def test_elements_that_calls_bring_are_checked_and_spare_the_neighbours(worker: Worker) -> None:
    """Indices out of the plane: INVALID_ARGUMENT naming the node, for the guilty call of a batch alone."""
    unpool = operators.UnpoolOperator(max_unpool=operators.MaxUnpool(spatial_dims=1, kernel_size=[2]))
    one = program(node("up", unpool, input="x", indices="i"), shape=(-1, 1, 3))
    one.inputs.add(name="i", dtype="DATA_TYPE_INT64", shape=(-1, 1, 3))
    x, good, bad = np.ones((1, 1, 3), np.float32), np.array([[[0, 2, 5]]]), np.array([[[0, 2, 6]]])
    calls = [worker.decode(REQUESTS.run(one, {"x": x, "i": indices})) for indices in (good, bad, good)]
    with pytest.raises(InvalidArgumentError, match="node up: max_unpool1d: indices must be 0 to 5, got 6"):
        worker.answers([calls[1]])
    with pytest.raises(InvalidArgumentError, match="node up"):
        worker.answers(calls)
    assert worker.answers([calls[0], calls[2]])[1]["y"].tolist() == [[[1, 0, 1, 0, 0, 1]]]


# gradients


def gradient_of(one, gradients, wanted, inputs=None) -> Callable[[], pb.Call]:
    return lambda: message_of(
        REQUESTS.differentiate(lambda f: f.run(one, {"x": X} if inputs is None else inputs), gradients, wanted)
    )


def test_gradients_by_inputs_and_constants(worker: Worker) -> None:
    gradient = np.full((2, 3), 2, np.float32)
    outputs = worker.differentiate(SUM, {"x": X}, {"y": gradient}, ["b", "x"])
    step = np.where(X + BIAS > 0, 2.0, 0.0)
    assert list(outputs) == ["b", "x"]
    np.testing.assert_array_equal(outputs["x"], step)
    np.testing.assert_array_equal(outputs["b"], step.sum(0))


def test_gradients_run_alone(worker: Worker) -> None:
    call = worker.decode(gradient_of(SUM, {"y": X}, ["x"])())
    assert call.key.merge.value == "alone"


def test_an_operator_has_gradients_too(worker: Worker) -> None:
    w = torch.ones(2, 3)
    request = REQUESTS.differentiate(lambda f: f.linear(X, w), np.ones((2, 2), np.float32), ["weight", "input"])
    (outputs,) = worker.answers([worker.decode(request)])
    np.testing.assert_array_equal(outputs["weight"], np.tile(X.sum(0), (2, 1)))
    np.testing.assert_array_equal(outputs["input"], np.full((2, 3), 2.0))


INTEGERS = program(
    node("up", ADD, input="i", other="i"), node("y", RELU, input="x"), node("n", RELU, input="y"), dtype=1
)
INTEGERS.inputs.add(name="i", dtype="DATA_TYPE_INT64", shape=[-1, 3])
WITH_INTEGERS = {"x": X, "i": X.astype(np.int64)}
Y = {"y": X}
BAD_GRADIENTS = {
    "no-request": (lambda: pb.Call(differentiate=pb.DifferentiateRequest(wanted=["x"])), "request", "is required"),
    "nothing-wanted": (gradient_of(SUM, Y, []), "wanted", "1 to 1024 names"),
    "wanted-twice": (gradient_of(SUM, Y, ["x", "x"]), "wanted", "each once"),
    "too-many-wanted": (gradient_of(SUM, Y, [f"w{index}" for index in range(1025)]), "wanted", "got 1025"),
    "wanted-unknown": (gradient_of(SUM, Y, ["none"]), "wanted", "got 'none'"),
    "wanted-is-a-node": (gradient_of(SUM, Y, ["sum"]), "wanted", "got 'sum'"),
    "wanted-is-an-integer": (gradient_of(INTEGERS, Y, ["i"], WITH_INTEGERS), "wanted", "floating-point"),
    "no-gradients": (gradient_of(SUM, {}, ["x"]), "output_gradients", "at least one"),
    "gradient-of-an-unknown-output": (gradient_of(SUM, Y | {"z": X}, ["x"]), "output_gradients", "among y, got 'z'"),
    "only-of-an-unknown-output": (gradient_of(SUM, {"z": X}, ["x"]), "output_gradients", "among y, got 'z'"),
    "gradient-of-another-shape": (gradient_of(SUM, {"y": X[:1]}, ["x"]), "y", r"[1, 3]"),
    "gradient-of-another-dtype": (gradient_of(SUM, {"y": X.astype(np.float64)}, ["x"]), "y", "float64"),
    "input-missing": (gradient_of(SUM, Y, ["x"], {}), "x", "is required"),
}


@pytest.mark.parametrize("case", BAD_GRADIENTS)
def test_bad_gradients_are_named(worker: Worker, case: str) -> None:
    message, field, rule = BAD_GRADIENTS[case]
    error = error_of(worker, message)
    assert isinstance(error, InvalidArgumentError), error
    assert error.field == field, error
    assert rule in str(error)


def test_gradients_of_other_sizes_need_no_walk_through_the_program(worker: Worker, monkeypatch) -> None:
    """What autograd keeps follows from what was checked: a walk takes the loop a second for 4096 nodes."""
    many = chain(10)
    worker.run(many, {"x": X})
    monkeypatch.setattr(variant, "graph_sizes", lambda *_: pytest.fail("the graph was sized anew"))
    footprints = []
    for rows in (2, 3, 50):
        x = np.ones((rows, 3), np.float32)
        call = worker.decode(gradient_of(many, {"y": x}, ["x"], {"x": x})())
        footprints.append(call.footprint)
        assert call.footprint >= 10 * x.nbytes
    assert footprints[2] - footprints[1] == 47 * (footprints[1] - footprints[0])


def test_of_an_operator_only_its_inputs_are_wanted(worker: Worker) -> None:
    for wanted, rule in ((["bias"], "'bias'"), (["indices"], "'indices'")):
        request = REQUESTS.differentiate(lambda f: f.linear(X, X), np.ones((2, 2), np.float32), wanted)
        error = error_of(worker, lambda request=request: message_of(request))
        assert error.field == "wanted" and rule in str(error)


def test_plans_of_large_programs_are_forgotten_before_they_fill_the_memory(worker: Worker, monkeypatch) -> None:
    """Programs that come with calls: each would be kept by its plan, and by that of its gradient."""
    monkeypatch.setattr(plan, "_PARTS", 25)
    plans = Plans(CallLimits(1 << 26, 2e11), "cpu")
    x = np.ones((2, 3), np.float32)
    calls = [worker.decode(run_of(chain(10))()), worker.decode(gradient_of(chain(10), {"y": x}, ["x"], {"x": x})())]
    assert [call.plan.operator.parts for call in calls] == [10, 11]
    facts = [(call.plan.operator, call.plan.specs, False) for call in calls]
    first, second = (plans.get(*of) for of in facts)
    assert plans.get(*facts[0]) is first
    relu = worker.decode(message_of(REQUESTS.relu(x))).plan
    for rows in range(1, 6):  # 10 + 11 + 4 are as many as may be
        plans.get(relu.operator, (TensorSpec(1, (rows,)),), deterministic=False)
    assert plans.get(*facts[0]) is first
    assert plans.get(*facts[1]) is not second
