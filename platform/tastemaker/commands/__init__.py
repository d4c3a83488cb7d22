"""The library's own commands, one noun a file; each is a few lines around a function of the part it names.

What a command needs is imported in it: `tastemaker --help` loads none of it (torch, FAISS, MLflow, pydantic).
"""
