"""Times one forward pass of BERT in ONNX Runtime, float32, on the CPU; first compares its logits with PyTorch's.

    python onnx_forward.py --config bert-base --batch 1 --seq 128

The graph is exported by PyTorch for the given batch and length, and optimised by ONNX Runtime as far as it goes.
"""

import argparse
import pathlib
import tempfile

import numpy
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import BertForSequenceClassification

import common


class Logits(torch.nn.Module):
    """Ids to logits, all rows real: the exported graph then has no mask to add."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids).logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(parser)
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="eager", help="the form that is exported")
    parser.add_argument("--int8", action="store_true", help="weights and activations quantised dynamically")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(common.SEED)
    config = common.bert_config(arguments.config)
    model = Logits(BertForSequenceClassification._from_config(config, attn_implementation=arguments.attention)).eval()
    ids, _ = common.token_ids(config, arguments.batch, arguments.seq)
    with torch.inference_mode():
        expected = model(ids).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "bert.onnx"
        torch.onnx.export(model, (ids,), path, input_names=["ids"], output_names=["logits"], dynamo=False)
        if arguments.int8:
            quantised = path.with_name("int8.onnx")
            quantize_dynamic(path, quantised, weight_type=QuantType.QInt8)
            path = quantised
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    del model
    inputs = {"ids": ids.numpy()}
    difference = numpy.abs(session.run(None, inputs)[0] - expected).max()
    # int8 is another function: its distance is not checked, and it is as large as quantisation makes it.
    if not arguments.int8 and not difference <= 1e-4 * numpy.abs(expected).max():
        raise SystemExit(f"ONNX Runtime's logits differ from PyTorch's by {difference}: not timed")
    seconds = common.measure(lambda: session.run(None, inputs), arguments.warmup, arguments.steps)
    arguments.dtype = "int8" if arguments.int8 else "f32"
    common.report(arguments, f"onnxruntime {onnxruntime.__version__}", seconds)


if __name__ == "__main__":
    main()
