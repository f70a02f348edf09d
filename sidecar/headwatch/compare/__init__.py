"""Two deployments, releases, arms or time ranges held side by side, within strata.

The flow: ``selector`` and ``ranges`` say what is meant → a :class:`~headwatch.compare.side.Source` is read as a
:class:`~headwatch.compare.side.Side` (``recorded`` from a history, ``stored`` from the store) → both are joined where they may
be compared (``pairs``) → permutations of the side say what chance alone does (``labels``, ``statistic``, ``testing``) →
effects, power and the case for triage (``effects``, ``power``, ``case``), all in ``run``; what ``report`` makes of it is for
people.
"""
