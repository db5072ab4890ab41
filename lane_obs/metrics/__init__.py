"""The catalogue of metrics and the numbers behind it: free of any vendor, so that every exporter shows the same."""

from lane_obs.metrics.catalogue import BUCKETS, CATALOGUE, LABELS, Metric
from lane_obs.metrics.lane_tally import LaneTally
from lane_obs.metrics.reading import Reader, Rows
from lane_obs.metrics.tally import Tally

__all__ = ["BUCKETS", "CATALOGUE", "LABELS", "LaneTally", "Metric", "Reader", "Rows", "Tally"]
