"""`from azureml.core.experiment import Experiment`."""
from azureml.core.run import Experiment

__all__ = ["Experiment"]
