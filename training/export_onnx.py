"""A checkpoint of SEW → the graph with which ONNX Runtime runs it, into the checkpoint's folder.

    python -m training.export_onnx embedded-sew

What the graph holds, and which weights it fits, is told in `streamer/recognition/onnx_network.py`.
"""

import argparse
import hashlib
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch

from streamer.recognition import Checkpoint, resolve
from streamer.recognition.checkpoint_files import GRAPH, SAFETENSORS, frame_grid
from streamer.recognition.models import load_model, quiet
from streamer.recognition.onnx_network import HEADER, INPUT, OUTPUT, read_header

_OPSET = 17
_STORED = ".stored"
"""A weight as the file has it; widened, it has its own name."""
_TYPES = {"F32": onnx.TensorProto.FLOAT, "F16": onnx.TensorProto.FLOAT16}


class _Logits(torch.nn.Module):
    """The model without what belongs to training."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, samples: torch.Tensor) -> Any:
        return self.model(samples).logits


def write_graph(checkpoint: Checkpoint) -> Path:
    """Write the graph beside the weights, which must be one file of safetensors; return its path.

    Raises:
        ModelError: as `load_model`.
        OSError: there is no such file, or the folder cannot be written.
    """
    weights = (checkpoint.folder / SAFETENSORS).read_bytes()
    graph = _traced(checkpoint)
    _point_into(graph, weights)
    path = checkpoint.folder / GRAPH
    path.write_bytes(graph.SerializeToString(deterministic=True))
    return path


def _traced(checkpoint: Checkpoint) -> Any:
    """The graph with its weights inside, each by its name in the checkpoint."""
    model = load_model(checkpoint).eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    # Only their places matter, and of two equal weights the exporter makes one: layers that have
    # not learned yet would share theirs for ever.
    for weight in model.parameters():
        weight.normal_()
    # A frame more than whole steps of the encoder: the tracer keeps the branch that it sees, and
    # this one cuts and fills up, by nothing where there is nothing.
    grid = frame_grid(model.config.to_dict())
    samples = torch.randn(1, grid.fit(16_000) + grid.hop)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file, quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about lengths that are compared
        torch.onnx.export(
            _Logits(model),
            (samples,),
            file.name,
            dynamo=False,
            opset_version=_OPSET,
            # Folded weights would have neither the names nor the shapes of the checkpoint's.
            do_constant_folding=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "windows", 1: "samples"}, OUTPUT: {0: "windows", 1: "frames"}},
        )
        return onnx.load(file.name)


def _point_into(model: Any, weights: bytes) -> None:
    """Take the weights out of a graph, and have it read and widen those of a safetensors file."""
    header, begin = read_header(weights)
    tensors = json.loads(header)
    names, widened = set(), []
    for initializer in model.graph.initializer:
        name = initializer.name.removeprefix("model.")
        names.add(name)
        place = tensors[name]
        assert list(initializer.dims) == place["shape"], name
        first, end = place["data_offsets"]
        widened.append(
            onnx.helper.make_node(
                "Cast", [name + _STORED], [initializer.name], to=onnx.TensorProto.FLOAT
            )
        )
        initializer.CopyFrom(
            onnx.TensorProto(
                name=name + _STORED,
                dims=place["shape"],
                data_type=_TYPES[place["dtype"]],
                data_location=onnx.TensorProto.EXTERNAL,
                external_data=[
                    onnx.StringStringEntryProto(key=key, value=str(value))
                    for key, value in (
                        ("location", SAFETENSORS),
                        ("offset", begin + first),
                        ("length", end - first),
                    )
                ],
            )
        )
    unused = tensors.keys() - names - {"__metadata__", "sew.masked_spec_embed"}
    assert not unused, f"{min(unused)} is not in the graph"
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.helper.set_model_props(model, {HEADER: hashlib.sha256(header).hexdigest()})


def main() -> None:
    """Write the graph of the checkpoint that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export_onnx", description=__doc__.split("\n")[0]
    )
    parser.add_argument("model", help="embedded-sew, a folder, or a hub name")
    path = write_graph(resolve(parser.parse_args().model))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
