"""OpenVINO on the CPU: the graph compiled for this machine and kept as the library's own compiled-model blob.

``library`` is the installed library and what it computes in here, ``compile`` writes the blob, with mvde's own
operators in it (``attention``, ``linear``), ``engine`` runs it. The blob is what OpenVINO's model cache stores. It lies
in the engine's folder, under the manifest's hash, instead of in a cache folder, so that what is loaded is what was
measured, and a read-only installation loads as fast as any other.
"""
