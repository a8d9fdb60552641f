#!/bin/sh
# normflows' masked autoregressive flow samples in one pass, and scores in as many passes as there are features.
#
# normflows 1.7.3, torch 2.13.0, CPython 3.11. `MaskedAffineAutoregressive` is documented as the masked
# autoregressive flow (MAF), whose density costs one pass of its network and whose samples cost D of them.
# A `NormalizingFlow` maps latents to data by `forward`, and this layer's `forward` is the single pass. So it
# is the flow's *other* direction, an inverse autoregressive flow: its maximum-likelihood training costs D
# passes a step, and its conditionals are of latents. `AutoregressiveRationalQuadraticSpline` of the same
# library has `forward` and `inverse` the other way round, and scores in one pass. Passes of the network seen
# with 6 features:
#
#   layer                                      log_prob   sample
#   MaskedAffineAutoregressive                        6        1
#   AutoregressiveRationalQuadraticSpline             1        6
#
# Ends with 1 if any of this has changed.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check normflows==1.7.3 torch==2.13.0

cat > "$folder/try.py" <<'END'
import sys

import normflows
import torch

D = 6


def passes(layer, network):
    """How often a layer's network is called to score one batch, and to draw one."""
    torch.manual_seed(0)
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(D), [layer])
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    found = []
    with torch.no_grad():
        for use in (lambda: flow.log_prob(torch.randn(10, D)), lambda: flow.sample(10)):
            calls.clear()
            use()
            found.append(len(calls))
    return tuple(found)


affine = normflows.flows.MaskedAffineAutoregressive(D, 16)
spline = normflows.flows.AutoregressiveRationalQuadraticSpline(D, 1, 16)
found = {
    "MaskedAffineAutoregressive": passes(affine, affine.autoregressive_net),
    "AutoregressiveRationalQuadraticSpline": passes(spline, spline.mprqat.autoregressive_net),
}
for name, (scoring, drawing) in found.items():
    print(f"{name:40} log_prob {scoring}, sample {drawing}")
sys.exit(list(found.values()) != [(D, 1), (1, D)])
END

"$folder/venv/bin/python" -c 'from importlib.metadata import version as v; print("normflows", v("normflows"), "torch", v("torch"))'
"$folder/venv/bin/python" "$folder/try.py"
