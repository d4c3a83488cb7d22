"""FAISS, imported in one place. Not for using it."""

from typing import Any

from tastemaker.errors import MissingExtraError

try:
    import faiss as _faiss
except ImportError as error:
    raise MissingExtraError("faiss is not installed", mend="pip install 'tastemaker[cpu]'") from error

faiss: Any = _faiss  # its stubs lack the keyword arguments of its Python layer
