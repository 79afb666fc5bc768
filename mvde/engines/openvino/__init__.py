"""OpenVINO on the CPU: the graph compiled for this machine and stored as a compiled-model blob.

``library`` wraps the installed library and its arithmetic, ``compile`` writes the blob with mvde's own operators
(``attention``, ``int8_linear``) and forms (``gelu``, ``linear``, ``narrow_weights``), ``engine`` runs it. The blob is
the format of OpenVINO's model cache. It is stored in the engine's folder, covered by the manifest's hash, instead of a
cache folder: the loaded model is the measured one, and read-only installations load just as fast.
"""
