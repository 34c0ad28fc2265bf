"""The Hugging Face Trainer with forward passes alone."""

from zoopt.integrations.trainer.trainer import ZOTrainer

__all__ = ["ZOTrainer"]
