"""TensorRT (10.3 to 11.x) and TensorRT-RTX: one backend, two libraries, whose differences are all in ``api.py``.

``parse`` reads the typed ONNX file, ``inspect`` says what the library made of it, ``build`` writes the plan, ``checks``
refuses one that is not for this machine, ``session`` runs it. Networks are strongly typed, always: what an operation
computes in is what the ONNX file says.
"""
