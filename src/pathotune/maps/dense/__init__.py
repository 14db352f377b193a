"""Networks that map a slide by themselves, without a mark: one file each.

A file gives ``NAME``, ``MADE_FOR``, ``classes``, ``colours`` and
``predict(slide, tissue, device) -> Job[ClassMap]``. Its name is its key.
"""
