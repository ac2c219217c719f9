"""The part of Azure ML's `azureml` package that training scripts use while they run.

An installed package of this name comes first on the path. Where it brings only other parts, both are found.
"""
__path__ = __import__("pkgutil").extend_path(__path__, __name__)
