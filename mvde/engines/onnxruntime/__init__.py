"""ONNX Runtime: runs a typed ONNX file unchanged, on the CPU, or on a GPU if the package has the provider.

``session`` opens every session: for engines, for export verification and for typed graphs under construction;
``providers`` selects the execution provider, ``compile`` writes an engine, ``engine`` runs it.
"""
