# SPDX-License-Identifier: Apache-2.0
"""Writes peer_sparse.safetensors: 2:4 masks as torchao makes them.

Needs torchao, torch (CPU).  Usage: python make_peer_sparse.py OUT.safetensors
"""
import importlib.metadata as md
import sys

import torch
from safetensors.torch import save_file
from torchao.sparsity import WandaSparsifier
from torchao.sparsity.utils import mask_creator

torch.set_num_threads(1)


def main(out):
    g = torch.Generator().manual_seed(21)
    w = torch.randn(33, 132, generator=g) * 0.1
    x = torch.randn(7, 132, generator=g) * torch.logspace(-1, 1, 132)
    linear = torch.nn.Linear(132, 33, bias=False)
    linear.weight.data.copy_(w)
    model = torch.nn.Sequential(linear)
    wanda = WandaSparsifier(semi_structured_block_size=4)
    wanda.prepare(model, [{"tensor_fqn": "0.weight"}])
    model(x), model(x.flip(0) * 0.3)
    norm = model[0].activation_post_process.norm.clone()
    wanda.step()
    data = {"W": w, "X": torch.cat([x, x.flip(0) * 0.3]), "wanda_norm": norm.reshape(1, -1),
            "magnitude": w * mask_creator(w), "wanda": w * model[0].parametrizations["weight"][0].mask}
    save_file({k: v.detach().contiguous().clone() for k, v in data.items()}, out,
              {"producer": "torchao " + md.version("torchao"), "torch": torch.__version__})


main(sys.argv[1])
