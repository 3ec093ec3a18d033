"""The Python interface: the one package that sees every room.

kcompile.compile("model.h5", target="onnx", output="model.onnx")
kcompile.load("model.onnx").predict(x)
kcompile.verify("model.onnx", against="model.h5")
"""

from kcompile.api.compiling import WEIGHTS_PLACES as WEIGHTS_PLACES
from kcompile.api.compiling import Artifact as Artifact
from kcompile.api.compiling import compile as compile
from kcompile.api.loading import is_keras_file as is_keras_file
from kcompile.api.loading import load as load
from kcompile.api.loading import load_model as load_model
from kcompile.api.loading import trace as trace
from kcompile.api.verifying import examine as examine
from kcompile.api.verifying import verify as verify
