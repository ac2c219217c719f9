"""What scripts log, as JSON has it. Nothing is imported for it: arrays and numbers say themselves what they are."""
import math
from collections.abc import Iterator, Mapping, Sequence, Set, ValuesView
from operator import index

# Whoever reads the records takes no deeper JSON than 128.
MAX_DEPTH = 64


def plain(value, depth=0):
    """The value as JSON has it. TypeError or ValueError when it has nothing like it."""
    if depth > MAX_DEPTH:
        raise ValueError("it is nested more than {} deep".format(MAX_DEPTH))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return plain_float(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return {plain_text(str(key)): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (Sequence, Set, ValuesView, Iterator)):
        return [plain(item, depth + 1) for item in value]
    held = _held(value)
    if held is not None:
        return plain(held, depth + 1)
    if hasattr(value, "__index__"):
        return index(value)
    if hasattr(value, "__float__"):
        return plain_float(float(value))
    raise TypeError("a value of type {} cannot be recorded".format(type(value).__name__))


def _held(value):
    """What an array (NumPy, CuPy, PyTorch), or a variable that holds one (Chainer, TensorFlow), is made of."""
    for name in ("tolist", "array", "numpy", "item"):
        found = getattr(value, name, None)
        if found is None:
            continue
        converted = found() if callable(found) else found
        # A `longdouble` of NumPy stays what it is.
        if type(converted) is not type(value):
            return converted
    return None


def plain_float(value):
    """JSON has no such numbers: they are written as texts."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


def plain_text(value):
    """Half a surrogate pair is no text (file names of another encoding have them): a reader of JSON refuses it."""
    try:
        value.encode("utf-8")
        return str(value)
    except UnicodeEncodeError:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
