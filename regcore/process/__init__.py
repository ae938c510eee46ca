"""The running process: threads, devices, workers, cost, CUDA graphs, writing files, log messages."""
