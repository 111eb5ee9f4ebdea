# SPDX-License-Identifier: Apache-2.0
"""transformers and compressed-tensors: plain models, integers and floats of compressed-tensors, and awq, in
float32.

A compressed-tensors export is also unpacked here: every Linear that the configuration names must be stored as
codes, and the weight that transformers computes with must be (code - zero point) * scale. compressed-tensors
makes bfloat16 of nvfp4 and of floats with scales e8m0: then it must be the nearest value of that type.

An awq export is unpacked here alone, and transformers computes with these weights as with those of a plain
model: it needs no kernels of AWQ, and says nothing about them.
"""
import json
import math

from readers import common
from readers.common import DataError

PACKAGES = common.Packages(plain=common.HUB, torch="torch",
                           bare=["transformers>=5", "compressed-tensors>=0.18"],
                           env={"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
                                "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"})
DTYPES = ("float32", "bfloat16")


def expect_packed_zeros():
    """compressed-tensors 0.20 stores zero points packed, but expects them as they were in a model whose data
    are not there yet, so that transformers refuses every asymmetric file: tell it their shape."""
    import torch
    from compressed_tensors.compressors import PackedQuantizationCompressor as Packed
    plain = Packed.compress.__func__

    def compress(cls, state, scheme):
        out, rows = plain(cls, state, scheme), len(state["weight"])
        zero = out.get("weight_zero_point")
        if zero is not None and zero.device.type == "meta" and len(zero) == rows:
            words = -(-rows * scheme.weights.num_bits // 32)
            out["weight_zero_point"] = torch.empty(words, *zero.shape[1:], dtype=torch.int32, device="meta")
        return out

    Packed.compress = classmethod(compress)


def check_weights(model, tensors, config):
    """Compare what transformers computes with to the files; returns the number of faults, each printed."""
    import numpy as np
    import torch
    from readers import unpack
    faults, packed, loose, half, schemes = 0, 0, 0, 0, {}
    for name, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        has = name + ".weight_scale" in tensors.info
        if not isinstance(module, torch.nn.Linear) or not (scheme or has):
            continue
        if scheme is None or not has:
            print(f"fault: {name}: " + ("is stored as codes, but no config group names it" if has else
                                        "a config group names it, but it is stored without codes"))
            faults += 1
            continue
        args = json.loads(scheme.weights.model_dump_json())
        want, is_packed = unpack.stored_weight(tensors, name, args)
        packed, loose = packed + is_packed, loose + (not is_packed)
        got = module.weight.detach().float().numpy()
        if np.array_equal(got, common.nearest_bfloat16(want)):
            half += not np.array_equal(got, want)
        elif not np.array_equal(got, want):
            worst = np.abs(got - want).max() if got.shape == want.shape else math.inf
            print(f"fault: {name}: weight is not what its codes say, worst difference {worst:g}")
            faults += 1
        kind = "float of " * (args["type"] == "float")
        kind += f"{args['num_bits']} bits, {args['strategy']} {args['group_size'] or ''}".rstrip()
        kind += f", scales {tensors.dtype(name + '.weight_scale')}"
        kind += ", zero points" * (not args["symmetric"])
        kind += ", inputs rounded" * (scheme.input_activations is not None)
        schemes[kind] = schemes.get(kind, 0) + 1
    stored = sum(n.endswith(".weight_scale") for n in tensors.info)
    if stored != packed + loose or not stored:
        print(f"fault: {stored} weight_scale in the files, {packed + loose} quantized Linear in the model")
        faults += 1
    print(f"format {config.get('format')}: {packed} packed and {loose} unpacked Linear, "
          + f"{half} with weights rounded to bfloat16, " * bool(half)
          + "; ".join(f"{n} with {k}" for k, n in sorted(schemes.items())))
    return faults


def load_plain(folder, weights, dtype):
    """What from_pretrained gives for a plain model with these weights."""
    import torch
    import transformers
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    del config.quantization_config
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    left = model.load_state_dict({n: torch.from_numpy(x) for n, x in weights.items()}, strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    return model, {"missing_keys": set(left.missing_keys) - tied, "unexpected_keys": left.unexpected_keys}


def load(folder, dtype, weights=None):
    """(model, faults): one type everywhere, codes decompressed, nothing missing and nothing left over."""
    import torch
    import transformers
    # dequantize=True would decompress every module by the first config group; this way each has its own
    if weights:
        model, info = load_plain(folder, weights, getattr(torch, dtype))
    else:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), local_files_only=True, output_loading_info=True)
    model.eval()
    if hasattr(getattr(model, "hf_quantizer", None), "compressor"):
        model.hf_quantizer.compressor.decompress_model(model)
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module.weight.is_floating_point():
                module.weight.data = module.weight.data.to(getattr(torch, dtype))
    faults = 0
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(kind):
            print(f"fault: {kind}: {sorted(map(str, info[kind]))[:5]} ({len(info[kind])})")
            faults += 1
    kinds = {}
    for name, p in model.named_parameters():
        if p.is_floating_point() and not name.endswith("_scale"):  # unused once codes are decompressed
            kinds[str(p.dtype)] = kinds.get(str(p.dtype), 0) + 1
    print(f"torch {torch.__version__}, transformers {transformers.__version__}; "
          f"{model.__class__.__name__}; floating parameters in memory: "
          + ", ".join(f"{n} {k}" for k, n in kinds.items()))
    if set(kinds) != {"torch." + dtype}:
        print(f"fault: mathematics would not be {dtype}")
        faults += 1
    return model, faults


class Model:
    """A torch model that has been loaded: what this reader and that of GPTQ measure."""

    def __init__(self, model, faults):
        self.model, self.faults = model, faults

    def loss(self, window):
        import torch
        with torch.no_grad():
            out = self.model(input_ids=torch.tensor([window]), use_cache=False)
        return common.mean_loss(out.logits[0].float().numpy(), window)

    def generate(self, ids, count):
        """Greedy."""
        import torch
        ids = list(ids)
        with torch.no_grad():
            for _ in range(count):
                out = self.model(input_ids=torch.tensor([ids]), use_cache=False)
                ids.append(int(out.logits[0, -1].argmax()))
        return ids[-count:]

    def weights(self):
        """(name, values) of the weight of every linear that it computes with."""
        import torch
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.Linear):
                yield name + ".weight", module.weight.detach().float().numpy()


def open_export(a, config):
    import torch
    from readers import unpack
    if a.threads:
        torch.set_num_threads(a.threads)
    quantization, tensors = config.get("quantization_config"), common.Tensors(a.export_dir)
    packed = sum(n.endswith(".weight_packed") for n in tensors.info)
    if packed and not quantization:
        raise DataError(f"{a.export_dir}/config.json: no quantization_config, but {packed} weight_packed")
    awq = (quantization or {}).get("quant_method") == "awq"
    try:
        if quantization:
            expect_packed_zeros()
        weights = unpack.awq_weights(tensors, quantization) if awq else None
        model, faults = load(a.export_dir, a.dtype, weights)
    except (ImportError, RuntimeError, ValueError, OSError) as e:
        raise DataError(f"{a.export_dir}: transformers does not load it: {e}") from None
    if awq:
        print(f"awq: {sum(n.endswith('.qweight') for n in tensors.info)} linears unpacked")
    elif quantization:
        import compressed_tensors
        print(f"compressed-tensors {compressed_tensors.__version__}")
        faults += check_weights(model, tensors, quantization)
    else:
        print("no quantization_config: a plain model, nothing to unpack")
    return Model(model, faults)
