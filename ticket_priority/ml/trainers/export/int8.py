"""Quantise an ONNX file to int8: weights when it is written, activations when it runs.

Each token's activations have a scale of their own. onnxruntime's quantiser has one scale for a
whole batch, so that an answer would depend on the other texts of the batch.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LARGEST: Final = 127

_LARGEST_WEIGHT: Final = 63
"""Seven of the eight bits: with eight, sums overflow on a CPU without VNNI, and the answers are
not those that were measured."""

_ZERO_POINT: Final = 128
"""The integer of 0: onnxruntime multiplies unsigned activations by signed weights."""

_SMALLEST_TABLE: Final = 1 << 16
_CONTRIBUTED: Final = "com.microsoft"

_LAST_AXIS, _LEAST, _STEP, _ZERO = "int8_last_axis", "int8_least", "int8_step", "int8_zero"


class QuantizationError(Exception):
    """The graph cannot be quantised."""


def quantize(source: Path, target: Path) -> None:
    """Write `source`, a float32 ONNX file, as int8 to `target`.

    A matrix has a scale for each output channel, the word embedding for each row, and the
    activations for each token. Raises QuantizationError when the graph cannot be quantised.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    model = onnx.load(source)
    try:
        for node in model.graph.node:
            # Its source lines are megabytes, with this machine's paths.
            del node.metadata_props[:]
            node.doc_string = ""
        _quantize_tables(model.graph)
        _quantize_matrices(model.graph)
        model.opset_import.append(helper.make_opsetid(_CONTRIBUTED, 1))
        onnx.save(model, target)
    except Exception as error:
        raise QuantizationError(f"{type(error).__name__}: {error}") from error
    finally:
        del model
        gc.collect()


def _quantize_tables(graph: Any) -> None:
    """Store embedding tables in int8, and rescale the rows that are looked up."""
    tables = {
        name: table
        for name, table in _constants(graph, _looks_up_rows).items()
        if np.prod(table.dims) >= _SMALLEST_TABLE
    }
    for table in tables.values():
        _store(graph, table, axis=1, largest=_LARGEST)

    def replacement(node: Any) -> list[Any]:
        return _lookup(node) if tables.keys() & set(node.input) else [node]

    _rewrite(graph, replacement)


def _quantize_matrices(graph: Any) -> None:
    """Store the matrices that activations are multiplied by in int8, and multiply in int8."""
    matrices = _constants(graph, _multiplies_by)
    for matrix in matrices.values():
        _store(graph, matrix, axis=0, largest=_LARGEST_WEIGHT)
    graph.initializer.extend(
        numpy_helper.from_array(value, name)
        for name, value in (
            (_LAST_AXIS, np.array([-1], np.int64)),
            (_LEAST, np.array(np.finfo(np.float32).tiny)),
            (_STEP, np.array(1 / _LARGEST, np.float32)),
            (_ZERO, np.array(_ZERO_POINT, np.uint8)),
        )
    )
    rounded: set[str] = set()

    def replacement(node: Any) -> list[Any]:
        if not matrices.keys() & set(node.input):
            return [node]
        activations, matrix = node.input
        product = _product(activations, matrix, node.output[0])
        if activations in rounded:
            return product
        rounded.add(activations)
        return _rounding(activations) + product

    _rewrite(graph, replacement)


def _constants(graph: Any, reads: Callable[[Any, str], bool]) -> dict[str, Any]:
    """Return the float matrices for which `reads` holds in every node that reads them, by name."""
    found = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2
    }
    readers: dict[str, list[Any]] = {name: [] for name in found}
    for node in graph.node:
        for name in set(node.input) & found.keys():
            readers[name].append(node)
    return {
        name: tensor
        for name, tensor in found.items()
        if readers[name] and all(reads(node, name) for node in readers[name])
    }


def _looks_up_rows(node: Any, table: str) -> bool:
    axis = next((value.i for value in node.attribute if value.name == "axis"), 0)
    return bool(node.op_type == "Gather" and node.input[0] == table and axis == 0)


def _multiplies_by(node: Any, matrix: str) -> bool:
    return bool(node.op_type == "MatMul" and node.input[0] != matrix)


def _store(graph: Any, tensor: Any, *, axis: int, largest: int) -> None:
    """Replace a matrix by integers up to `largest` and scales, one for each slice of `axis`."""
    name, values = tensor.name, numpy_helper.to_array(tensor)
    scales = (np.abs(values).max(axis=axis, keepdims=True) / largest).astype(np.float32)
    scales[scales == 0] = 1.0
    integers = np.rint(values / scales).astype(np.int8)
    graph.initializer.remove(tensor)
    graph.initializer.append(numpy_helper.from_array(integers, f"{name}_int8"))
    # A product needs the scales of its columns as a row, a lookup those of its rows as a column.
    scales = scales[0] if axis == 0 else scales
    graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))


def _rewrite(graph: Any, replacement: Callable[[Any], list[Any]]) -> None:
    nodes = [new for node in graph.node for new in replacement(node)]
    del graph.node[:]
    graph.node.extend(nodes)


def _lookup(node: Any) -> list[Any]:
    table, index = node.input
    output = node.output[0]
    return [
        helper.make_node("Gather", [f"{table}_int8", index], [f"{output}_int8"], axis=0),
        helper.make_node("Cast", [f"{output}_int8"], [f"{output}_cast"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{table}_scales", index], [f"{output}_scales"], axis=0),
        helper.make_node("Mul", [f"{output}_cast", f"{output}_scales"], [output]),
    ]


def _rounding(name: str) -> list[Any]:
    """Divide each token's activations by the largest of them, and round."""
    sizes, largest, scale, scaled = (
        f"{name}_{part}" for part in ("sizes", "largest", "scale", "scaled")
    )
    return [
        helper.make_node("Abs", [name], [sizes]),
        helper.make_node("ReduceMax", [sizes, _LAST_AXIS], [largest], keepdims=1),
        helper.make_node("Max", [largest, _LEAST], [scale]),
        helper.make_node("Div", [name, scale], [scaled]),
        helper.make_node("QuantizeLinear", [scaled, _STEP, _ZERO], [f"{name}_int8"]),
    ]


def _product(activations: str, matrix: str, output: str) -> list[Any]:
    factors = [f"{activations}_int8", f"{matrix}_int8", _STEP, f"{matrix}_scales", _ZERO]
    unscaled = f"{output}_unscaled"
    return [
        helper.make_node("MatMulIntegerToFloat", factors, [unscaled], domain=_CONTRIBUTED),
        helper.make_node("Mul", [unscaled, f"{activations}_scale"], [output]),
    ]
