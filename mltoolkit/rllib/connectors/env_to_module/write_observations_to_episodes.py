"""A connector of RLlib's that has nothing left to do."""

from __future__ import annotations

from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2

__all__ = ["WriteObservationsToEpisodes"]


class WriteObservationsToEpisodes(ConnectorV2):
    """Pass observations on: what leaves the pipeline always is what the learner sees. For programs that list it."""

    uses_previous = False
