# SPDX-License-Identifier: Apache-2.0
"""AIMET: outputs of the format aimet, in float32.  Which AIMET it is depends on the encodings file in the folder.

model_torch.encodings (version 0.6.1): aimet-torch.  QuantizationSimModel of the folder's model gets quantizers of
the shapes that the file has, load_encodings fills and freezes them; inputs of linears are quantized where the file has
encodings of them (it has none of keys and values), and nothing else is.  AIMET computes
scales from min and max, so some differ from the file's in the last place: the reader says how many, and then
gives the quantizers the file's.

model.encodings: aimet-onnx.  It needs model.onnx and names.json, which tools/export_onnx.py makes of the folder,
with --length as this script's --ctx.  Weights are compared under the names of torch.
"""
import json
import os

from readers import common
from readers.common import DataError

PACKAGES = common.Packages(
    plain=[*common.HUB, "onnx", "onnx_ir", "onnxscript", "onnxruntime", "jsonschema", "pandas", "scipy",
           "scikit-learn", "tensorboard", "matplotlib", "bokeh", "holoviews", "hvplot", "cvxpy", "osqp", "pybind11"],
    torch="torch==2.15.0",
    bare=["torchvision==0.29.2", "transformers==5.24.0", "aimet-torch==2.42.0", "aimet-onnx==2.42.0"],
    env={"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"})
DTYPES = ("float32",)


def param_encodings(path):
    """name -> the file's encoding of a weight, whatever the version."""
    file = common.read_json(path)
    listed = file.get("encodings", file.get("param_encodings"))
    return listed if isinstance(listed, dict) else {e["name"]: e for e in listed}


# ---- aimet-torch ----

def wrap(model):
    """A module with the names of the checkpoint that returns logits: AIMET wants tensors, not dictionaries."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.lm_head = model.model, model.lm_head

        def forward(self, ids):
            return self.lm_head(self.model(input_ids=ids, use_cache=False)[0])

    return Logits().eval()


def quantizer_for(weight, entries):
    """Of the shape that the file has: an entry for each row, or for each block of columns of each row."""
    from aimet_torch.quantization.affine import QuantizeDequantize
    rows, cols = weight.shape
    blocks = len(entries) // rows
    if rows * blocks != len(entries) or cols % blocks:
        raise DataError(f"{len(entries)} encodings for a weight of {rows} x {cols}")
    return QuantizeDequantize(shape=(rows, blocks), bitwidth=entries[0]["bitwidth"],
                              symmetric=entries[0]["is_symmetric"] == "True",
                              block_size=(1, cols // blocks) if blocks > 1 else None)


def input_quantizer(entry):
    from aimet_torch.quantization.affine import QuantizeDequantize
    return QuantizeDequantize(shape=(), bitwidth=entry["bitwidth"], symmetric=entry["is_symmetric"] == "True")


class Torch:
    def __init__(self, folder, path):
        import torch
        import transformers
        from aimet_torch import QuantizationSimModel
        self.torch, self.faults, self.file = torch, 0, param_encodings(path)
        self.inputs = common.read_json(path).get("activation_encodings") or {}
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True,
                                                                  attn_implementation="eager")
        self.sim = QuantizationSimModel(wrap(model), dummy_input=(torch.arange(8)[None],), in_place=True)
        self.prepare()
        self.sim.load_encodings(path, strict=True, partial=False, requires_grad=False, allow_overwrite=False)
        self.settle()

    def linears(self):
        for name, module in self.sim.model.named_modules():
            for part in getattr(module, "param_quantizers", {}):
                yield f"{name}.{part}", module, part

    def prepare(self):
        for module in self.sim.model.modules():
            for quantizers in (getattr(module, "input_quantizers", []), getattr(module, "output_quantizers", [])):
                for i in range(len(quantizers)):
                    quantizers[i] = None
        for name, module, part in self.linears():
            entries = self.file.get(name)
            module.param_quantizers[part] = quantizer_for(module.weight, entries) if entries else None
        for name, module in self.sim.model.named_modules():
            if name in self.inputs:
                module.input_quantizers[0] = input_quantizer(self.inputs[name]["input"]["0"])

    def settle(self):
        """Count scales that AIMET has computed otherwise, and set those of the file."""
        unlike = scales = loaded = 0
        for name, module, part in self.linears():
            quantizer = module.param_quantizers[part]
            if quantizer is None:
                continue
            want = self.torch.tensor([e["scale"] for e in self.file[name]]).view(quantizer.shape)
            got = quantizer.get_scale()
            unlike, scales, loaded = unlike + int((got != want).sum()), scales + want.numel(), loaded + 1
            if not self.torch.allclose(got, want, rtol=3e-7, atol=0):
                print(f"fault: {name}: scales are not those of the file")
                self.faults += 1
            quantizer._reparametrize_to_scale_offset()
            with self.torch.no_grad():
                quantizer.scale.copy_(want)
        print(f"load_encodings: {loaded} weights; {scales - unlike} of {scales} scales equal the file's, {unlike} "
              "differ in the last place and are set")
        self.faults += loaded != len(self.file)
        self.settle_inputs()

    def settle_inputs(self):
        """The same of inputs, whose offsets must be the file's."""
        loaded = 0
        for name, module in self.sim.model.named_modules():
            if name not in self.inputs:
                continue
            entry, quantizer = self.inputs[name]["input"]["0"], module.input_quantizers[0]
            got = float(quantizer.get_scale()), float(quantizer.get_offset())
            want = entry["scale"], entry["offset"] + (2 ** (entry["bitwidth"] - 1) if entry["is_symmetric"] == "True" else 0)
            if abs(got[0] - want[0]) > 3e-7 * want[0] or got[1] != want[1]:
                print(f"fault: {name}: the grid of its input is {got}, not {want}")
                self.faults += 1
            quantizer._reparametrize_to_scale_offset()
            with self.torch.no_grad():
                quantizer.scale.copy_(self.torch.tensor(want[0]))
            loaded += 1
        if self.inputs:
            print(f"load_encodings: inputs of {loaded} of {len(self.inputs)} linears")
        self.faults += loaded != len(self.inputs)

    def loss(self, window):
        with self.torch.no_grad():
            return common.mean_loss(self.sim.model(self.torch.tensor([window]))[0].numpy(), window)

    def generate(self, ids, count):
        raise DataError("--prompt: not with AIMET")

    def weights(self):
        for name, module, part in self.linears():
            if module.param_quantizers[part] is not None:
                got = module.param_quantizers[part](module.weight.detach())
                yield name, got.as_subclass(self.torch.Tensor).numpy()


# ---- aimet-onnx ----

class Onnx:
    def __init__(self, folder, path):
        import onnx
        from aimet_onnx.quantsim import QuantizationSimModel, load_encodings_to_sim
        self.faults, self.file = 0, param_encodings(path)
        self.names = common.read_json(os.path.join(folder, "names.json"))
        model = onnx.load(os.path.join(folder, "model.onnx"))
        self.initializer = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
        self.length = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        self.input = model.graph.input[0].name
        self.sim = QuantizationSimModel(model)
        load_encodings_to_sim(self.sim, path, strict=False, allow_overwrite=False)
        enabled = {n for n, q in self.sim.qc_quantize_op_dict.items() if q.enabled}
        print(f"load_encodings_to_sim: {len(enabled)} quantizers, {len(self.file)} encodings in the file")
        self.faults += enabled != set(self.file)

    def loss(self, window):
        import numpy as np
        if len(window) != self.length:
            raise DataError(f"model.onnx takes {self.length} tokens, not {len(window)}: export_onnx.py --length, --ctx")
        logits = self.sim.session.run(None, {self.input: np.array([window])})[0]
        return common.mean_loss(logits[0], window)

    def generate(self, ids, count):
        raise DataError("--prompt: not with AIMET")

    def weights(self):
        for torch_name, entry in self.names.items():
            name, turned = (entry, False) if isinstance(entry, str) else (entry["name"], entry["transposed"])
            if name in self.file:
                got = self.sim.qc_quantize_op_dict[name].quantize_dequantize(self.initializer[name])
                yield torch_name, got.T if turned else got


def open_export(a, config):
    import torch
    if a.threads:
        torch.set_num_threads(a.threads)
    for name, package, reader in (("model.encodings", "aimet_onnx", Onnx), ("model_torch.encodings", "aimet_torch", Torch)):
        path = os.path.join(a.export_dir, name)
        if os.path.exists(path):
            try:
                model = reader(a.export_dir, path)
            except (ImportError, RuntimeError, ValueError, OSError, json.JSONDecodeError) as e:
                raise DataError(f"{a.export_dir}: {package} does not load it: {e}") from None
            print(f"torch {torch.__version__}, {package} {__import__(package).__version__}; {name}")
            return model
    raise DataError(f"{a.export_dir}: has no encodings file: is it an output of the format aimet?")
