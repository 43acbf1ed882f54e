"""The embedded world: small drawn scenes, questions about them, and minimal contrast pairs. Seeded and offline.

``scenes`` says what there is, ``render`` draws it, ``grammar`` talks about it, ``contrast`` makes pairs, and
``base_model`` and ``pretrain`` make the small LLaVA that starts out leaning on the world's regularities.
"""
