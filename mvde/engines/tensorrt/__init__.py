"""TensorRT (10.3 to 11.x) and TensorRT-RTX: one backend, two libraries, whose differences are all in ``api.py``.

``choices`` is what a user may choose, ``parse`` reads the typed ONNX file, ``inspect`` says what the library made of
it, ``plan_build`` writes the plan, ``checks`` refuses one that is not for this machine, ``loaded_plan`` hands it to the
library and ``engine`` runs it. Networks are strongly typed, always: what an operation computes in is what the ONNX file
says.
"""
