"""Studies: a matrix of objectives, data and seeds through the ordinary train and eval commands, resumable, with its tables.

``spec`` is what a study file says, ``sources`` makes its data, ``cells`` its tasks, ``run`` runs them, ``results`` reads what
they leave, and ``tables``, ``shifts`` and ``figures`` show it.
"""
