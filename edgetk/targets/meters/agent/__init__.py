"""What runs on a board: one zip file of plain Python 3.8, with the board's own onnxruntime or TensorRT and nothing else."""
