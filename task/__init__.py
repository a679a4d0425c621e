"""What is learned, shared by both sides: data, partition, models, training, metrics, messages."""
