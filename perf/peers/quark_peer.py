#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""AMD Quark: Auto-SmoothQuant, AWQ, GPTQ or nothing before rounding of weights, through its ModelQuantizer."""
import common
import torch

SCALING = [
    {"prev_op": "input_layernorm", "layers": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
     "inp": "self_attn.q_proj", "module2inspect": "self_attn"},
    {"prev_op": "self_attn.v_proj", "layers": ["self_attn.o_proj"], "inp": "self_attn.o_proj"},
    {"prev_op": "post_attention_layernorm", "layers": ["mlp.gate_proj", "mlp.up_proj"], "inp": "mlp.gate_proj",
     "module2inspect": "mlp"},
    {"prev_op": "mlp.up_proj", "layers": ["mlp.down_proj"], "inp": "mlp.down_proj"},
]


def spec(a):
    """int4 if symmetric, uint4 with zero points; a scale for a row or a group of its columns."""
    from quark.torch.quantization.config import config as q
    kind = ("Uint" if a.asymmetric else "Int") + str(a.bits)
    name, more = (kind + "PerChannelSpec", dict(ch_axis=0)) if a.group < 0 else (
        kind + "PerGroupSpec", dict(ch_axis=-1, group_size=a.group))
    if not hasattr(q, name):
        raise SystemExit(f"quark: has no {name}")
    return getattr(q, name)(symmetric=not a.asymmetric, is_dynamic=False, **more).to_quantization_spec()


def algorithms(a):
    from quark.torch.quantization.config import config as q
    layers = dict(model_decoder_layers="model.layers")
    return {"rtn": lambda: [],
            "autosmoothquant": lambda: [q.AutoSmoothQuantConfig(scaling_layers=SCALING, compute_scale_loss=a.loss, **layers)],
            "awq": lambda: [q.AWQConfig(scaling_layers=SCALING, **layers)],
            "gptq": lambda: [q.GPTQConfig(inside_layer_modules=["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj",
                                          "self_attn.o_proj", "mlp.up_proj", "mlp.gate_proj", "mlp.down_proj"],
                                          desc_act=a.desc_act, **layers)]}[a.method]()


def main():
    a = common.arguments(__doc__, method=dict(choices=("rtn", "autosmoothquant", "awq", "gptq"), default="autosmoothquant"),
                         loss=dict(choices=("MSE", "MAE", "RMSE"), default="MSE", help="Auto-SmoothQuant's"),
                         desc_act=dict(action="store_true", help="GPTQ: columns by falling diagonal"),
                         batch=dict(type=int, default=1, help="samples of a call"))
    from quark.torch import ModelQuantizer
    from quark.torch.quantization.config.config import QConfig, QLayerConfig
    from torch.utils.data import DataLoader
    m, t = common.load(a), common.calibration(a)
    config = QConfig(global_quant_config=QLayerConfig(weight=spec(a)), exclude=["lm_head"], algo_config=algorithms(a))
    quantizer = ModelQuantizer(config)
    with common.Clock() as clock, torch.no_grad():
        m = quantizer.quantize_model(m, DataLoader(t, batch_size=a.batch))
        m = quantizer.freeze(m)  # weights become the rounded ones
    extra = {"autosmoothquant": dict(loss=a.loss), "gptq": dict(desc_act=a.desc_act)}.get(a.method, {})
    common.finish("quark " + a.method, "amd-quark", a, m, clock, batch=a.batch, **extra)


if __name__ == "__main__":
    main()
