"""The report and the model card, made from nothing but the files of run folders.

``read`` collects the files, and ``proofs`` what is proven of each exported one; ``accuracy``,
``waterfall`` (with ``paired``), ``exports`` (with ``tried`` and ``sensitivity``), ``latency``,
``training`` and ``facts`` turn them into what is shown; ``headline`` sums up; ``plots`` draws on
top of ``svg``; ``html`` and ``model_card`` write. Base dependencies only.
"""
