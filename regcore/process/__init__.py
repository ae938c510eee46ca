"""What belongs to the running process: threads, devices, workers, cost, CUDA graphs, writing files, messages."""
