"""Studies: a matrix of objectives, data and seeds through the ordinary train and eval commands, resumable, with its tables.

``spec`` is what a study file says, ``sources`` makes its data, ``cells`` its tasks; ``conduct`` has ``run`` run them here, or
``slurm`` submits them; ``standing`` says how they stand, ``results`` reads what they leave, and ``report`` shows it in ``tables``
and ``figures``, beside the paper's rows (``published``).
"""
