"""ONNX Runtime: runs a typed ONNX file as it is, on the CPU or a GPU where the installed package has the provider.

``session`` is the one place that opens a session, for engines, for the export's verification and for typed graphs that
are being made; ``providers`` is what they run on, ``compile`` writes an engine, ``engine`` runs it.
"""
