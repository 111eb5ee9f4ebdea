# SPDX-License-Identifier: Apache-2.0
"""GPTQModel, by transformers' GPTQ path and its backend gptq_torch: gptq; by GPTQModel's own loader: awq."""
from readers import by_transformers, common
from readers.common import DataError

PACKAGES = common.Packages(
    plain=[*common.HUB, "pillow", "protobuf", "threadpoolctl", "ninja", "datasets", "dill", "device-smi",
           "logbar", "pypcre", "setuptools>=77,<82", "wheel"],
    torch="torch", bare=["transformers>=5", "accelerate", "torchao", "optimum", "tokenicer", "defuser"],
    last=["--no-build-isolation", "gptqmodel"],
    env=dict(by_transformers.PACKAGES.env, TORCHDYNAMO_DISABLE="1"))
DTYPES = ("float32", "float16", "bfloat16")


class Model(by_transformers.Model):
    def weights(self):
        """What a linear with codes makes of the unit vectors."""
        import torch
        for name, module in self.model.named_modules():
            if hasattr(module, "qweight"):
                with torch.no_grad():
                    out = module(torch.eye(module.in_features, dtype=next(self.model.parameters()).dtype))
                yield name + ".weight", (out if module.bias is None else out - module.bias).float().numpy().T


def open_export(a, config):
    import gptqmodel
    import torch
    import transformers
    if a.threads:
        torch.set_num_threads(a.threads)
    quantization = config.get("quantization_config") or {}
    if quantization.get("quant_method") not in ("gptq", "awq"):
        raise DataError(f"{a.export_dir}: is no gptq or awq export")
    how = {"dtype": getattr(torch, a.dtype), "device_map": "cpu", "local_files_only": True}
    try:
        if quantization["quant_method"] == "gptq":
            how["quantization_config"] = transformers.GPTQConfig(quantization["bits"], backend="gptq_torch")
            model = transformers.AutoModelForCausalLM.from_pretrained(a.export_dir, **how)
        else:
            model = gptqmodel.GPTQModel.load(a.export_dir, backend=gptqmodel.BACKEND.TORCH_AWQ, device="cpu",
                                             dtype=how["dtype"]).model
    except (ImportError, RuntimeError, ValueError, OSError) as e:
        raise DataError(f"{a.export_dir}: GPTQModel does not load it: {e}") from None
    kinds = {type(m).__name__ for m in model.modules() if hasattr(m, "qweight")}
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, "
          f"gptqmodel {gptqmodel.__version__}; {a.dtype}; linears of "
          + (", ".join(sorted(kinds)) or "no known kind"))
    return Model(model.eval(), int(not kinds))
