"""int8 for an ONNX file: weights are stored in eight bits, activations are scaled as they come."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

_LARGEST: Final = 127
_SMALLEST_TABLE: Final = 1 << 16


class QuantizationError(Exception):
    """The graph has something that cannot be quantised."""


def quantize(source: Path, target: Path) -> None:
    """Write `source`, a float32 ONNX file, as int8 to `target`.

    Matrices get one scale an output channel, the word embedding one a row. Raises
    QuantizationError when the graph cannot be quantised.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    model = onnx.load(source)
    # Shapes noted by the exporter contradict those that the quantiser infers.
    del model.graph.value_info[:]
    _drop_origins(model.graph)
    _quantize_tables(model.graph)
    try:
        with _quiet_quantizer():
            quantize_dynamic(
                model,
                target,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                # Seven bits of the eight: else the sums overflow on a CPU without VNNI, and the
                # model answers otherwise than where it was judged.
                reduce_range=True,
            )
    except Exception as error:
        raise QuantizationError(f"{type(error).__name__}: {error}") from error
    finally:
        del model
        gc.collect()


def _drop_origins(graph: Any) -> None:
    """Each node carries the source lines it came from: megabytes, and this machine's paths."""
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""


def _quantize_tables(graph: Any) -> None:
    """Store embedding tables in int8 with a scale a row, and rescale the rows looked up.

    onnxruntime's own quantiser gives a whole table one scale, which outliers make too coarse.
    """
    tables = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2
        and np.prod(tensor.dims) >= _SMALLEST_TABLE
    }
    readers: dict[str, list[Any]] = {name: [] for name in tables}
    for node in graph.node:
        for name in set(node.input) & tables.keys():
            readers[name].append(node)
    for name, nodes in readers.items():
        if nodes and all(_looks_up_rows(node, name) for node in nodes):
            _quantize_table(graph, tables[name], nodes)


def _looks_up_rows(node: Any, table: str) -> bool:
    axis = next((value.i for value in node.attribute if value.name == "axis"), 0)
    return bool(node.op_type == "Gather" and node.input[0] == table and axis == 0)


def _quantize_table(graph: Any, table: Any, lookups: list[Any]) -> None:
    name = table.name
    values = numpy_helper.to_array(table)
    scales = (np.abs(values).max(axis=1, keepdims=True) / _LARGEST).astype(np.float32)
    scales[scales == 0] = 1.0
    rows = np.rint(values / scales).astype(np.int8)
    graph.initializer.remove(table)
    del table, values
    graph.initializer.append(numpy_helper.from_array(rows, f"{name}_int8"))
    graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
    for lookup in lookups:
        index, output = lookup.input[1], lookup.output[0]
        replacement = [
            helper.make_node("Gather", [f"{name}_int8", index], [f"{output}_int8"], axis=0),
            helper.make_node("Cast", [f"{output}_int8"], [f"{output}_cast"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [f"{name}_scales", index], [f"{output}_scales"], axis=0),
            helper.make_node("Mul", [f"{output}_cast", f"{output}_scales"], [output]),
        ]
        nodes = list(graph.node)
        at = nodes.index(lookup)
        nodes[at : at + 1] = replacement
        del graph.node[:]
        graph.node.extend(nodes)


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """Keep out what the quantiser says, to the root logger, of each node and of pre-processing."""

    def is_news(record: logging.LogRecord) -> bool:
        if "onnxruntime" not in record.pathname:
            return True
        return record.levelno > logging.INFO and "pre-processing" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_news)
    try:
        yield
    finally:
        root.removeFilter(is_news)
