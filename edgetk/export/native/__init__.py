"""C sources of the operator library: kernels for edgetk's own operators, and their registration with ONNX Runtime."""
