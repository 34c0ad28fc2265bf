"""The implementation of ``zoopt tune``.

``tune`` begins a ``session``, which measures the ``base_model``, lets ``search`` find rates, makes
steps in a ``loop``, and ends the run (``ending``).
"""
