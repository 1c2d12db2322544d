"""Loggers: callbacks that write results to files and tracking services."""

from mltoolkit.tune.logger.csv import CSVLoggerCallback
from mltoolkit.tune.logger.json import JsonLoggerCallback
from mltoolkit.tune.logger.logger import LoggerCallback, pretty_print
from mltoolkit.tune.logger.tensorboardx import TBXLoggerCallback

__all__ = ["CSVLoggerCallback", "JsonLoggerCallback", "LoggerCallback", "TBXLoggerCallback", "pretty_print"]
