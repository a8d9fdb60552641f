#!/bin/sh
# An ONNX file of torch.special.erfcx gives 0 from 4 on, and NaN from 10 on, in single precision.
#
# torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0, CPython 3.11, Linux x86-64. erfcx(x) = exp(x^2) erfc(x) is
# there because one of its factors overflows and the other vanishes: it falls like 1 / x only, and log-densities far out in a
# tail are computed with it. The exporter writes it as the product exp(x^2) (1 - erf(x)), without a warning:
#
#   x              1         4         8        12
#   torch     0.4276    0.1370    0.0700    0.0469
#   the file  0.4276    0.        0.        nan
#
# Ends with 1 if this has changed.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0

cat > "$folder/try.py" <<'END'
import sys
from importlib.metadata import version

import onnxruntime
import torch


class Scaled(torch.nn.Module):
    def forward(self, x):
        return torch.special.erfcx(x)


path, x = sys.argv[1], torch.tensor([1.0, 4.0, 8.0, 12.0])
torch.onnx.export(Scaled(), (x,), path, dynamo=True, verbose=False)
(found,) = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
expected = torch.special.erfcx(x)
print(*(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript", "onnxruntime")))
print("torch      ", expected.tolist())
print("onnxruntime", found.tolist())
error = (torch.from_numpy(found) / expected - 1).abs()
same = error[0] < 1e-5 and found[1] == 0 and found[3] != found[3]
sys.exit(not same)
END

"$folder/venv/bin/python" "$folder/try.py" "$folder/scaled.onnx"
