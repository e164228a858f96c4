"""Convert YAMNet's published TFLite file to the tensors that `auricle.train.teacher` reads.

Usage: python recipes/tiny/teacher.py YAMNET.tflite OUT.safetensors
(the file of MediaPipe's audio classifier, 4,078,224 bytes, Apache-2.0; needs the package ai-edge-litert)
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from auricle.weights import safe

SHA256 = "469be6a3421cbc52cf97e9f2f966cba984198e8e7af9854d68b3e3ebb1e04194"
PREFIX = "yamnet_frames/"


def read_constants(path: Path) -> dict[tuple[str, int], Tensor]:
    """Stored tensors by the first of their names, without `PREFIX`, and their number of axes; float32."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    found: dict[tuple[str, int], Tensor] = {}
    for tensor in interpreter.get_tensor_details():
        try:
            values = interpreter.get_tensor(tensor["index"])
        except ValueError:  # computed, not stored
            continue
        scales = tensor["quantization_parameters"]["scales"]
        name = tensor["name"].split(";")[0].removeprefix(PREFIX)
        values = values.astype(np.float32) * (scales[0] if scales.size else np.float32(1))
        found.setdefault((name, values.ndim), torch.from_numpy(values))
    return found


def renamed(constants: dict[tuple[str, int], Tensor]) -> dict[str, Tensor]:
    """TensorFlow's names and axes → those of `auricle.train.teacher.EventTeacher`."""
    tensors = {
        "window": constants["tf_op_layer_Mul/Mul/y", 2][0],
        "filters": constants["tf_op_layer_MatMul_2/MatMul_2", 2].t(),
        "first.weight": constants["layer1/conv/Conv2D", 4].permute(0, 3, 1, 2),
        "first.bias": constants["layer1/conv/bn/FusedBatchNormV3", 1],
        "classes.weight": constants["dense/MatMul", 2],
        "classes.bias": constants["dense/BiasAdd/ReadVariableOp/resource", 1],
    }
    for number in range(13):
        layer = f"layer{number + 2}"
        depthwise, pointwise = f"{layer}/depthwise_conv/bn/FusedBatchNormV3", f"{layer}/pointwise_conv"
        tensors |= {
            f"depthwise.{number}.weight": constants[depthwise, 4].permute(3, 0, 1, 2),
            f"depthwise.{number}.bias": constants[depthwise, 1],
            f"pointwise.{number}.weight": constants[f"{pointwise}/Conv2D", 4].permute(0, 3, 1, 2),
            f"pointwise.{number}.bias": constants[f"{pointwise}/bn/FusedBatchNormV3", 1],
        }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def main() -> None:
    """Parse, check, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    if (found := safe.sha256(options.source)) != SHA256:
        raise SystemExit(f"{options.source}: SHA-256 {found}, expected {SHA256}; take the published file")
    safe.write_tensors(options.out, renamed(read_constants(options.source)))


if __name__ == "__main__":
    main()
