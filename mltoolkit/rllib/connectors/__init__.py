"""Connectors: what happens to observations, rewards and actions between environments and module."""

from mltoolkit.rllib.connectors.connector_v2 import ConnectorError, ConnectorV2, Step

__all__ = ["ConnectorError", "ConnectorV2", "Step"]
