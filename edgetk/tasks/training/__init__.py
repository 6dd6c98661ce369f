"""Training on a task's data: one loop for models from scratch, distillation and fine-tuning after compression."""
