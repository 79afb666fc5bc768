"""TensorRT (10.3 to 11.x) and TensorRT-RTX: one backend, two libraries, whose differences are all in ``api.py``.

``choices`` holds the user options, ``parse`` reads the typed ONNX file, ``inspect`` examines the parsed network,
``plan_build`` writes the plan, ``checks`` rejects plans for other machines, ``loaded_plan`` deserialises a plan and
``engine`` runs it. Networks are always strongly typed: each operation computes in the dtype stated in the ONNX file.
"""
