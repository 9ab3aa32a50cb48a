"""The report and the model card, made from nothing but the files of run folders.

``read`` collects the files; ``accuracy``, ``waterfall`` (with ``paired``), ``latency``, ``curves``
and ``facts`` turn them into what is shown; ``headline`` sums up; ``plots`` draws on top of ``svg``;
``html`` and ``model_card`` write. Base dependencies only.
"""
