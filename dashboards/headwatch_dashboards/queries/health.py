"""What capture and the exporters say of themselves."""

from __future__ import annotations

from headwatch.metrics import ATTR_EXPORTER, ATTR_REASON, ATTR_STATE, metric
from headwatch_dashboards.names import GAUGES, SUMS
from headwatch_dashboards.queries.scope import SERIES, WORKER, metrics


def capture_up() -> str:
    """Return 1 where every worker's last word was that it captures, else 0; no row where no worker reported."""
    return f"""SELECT min(up) AS up
FROM (
  SELECT argMax(m.Value, m.TimeUnix) AS up
  FROM {GAUGES} AS m
  WHERE {metrics("capture.up")}
  GROUP BY {WORKER}
)
HAVING count() > 0"""


def refused_layers() -> str:
    """Return how many layers all workers refuse together; no row where no worker reported."""
    return f"""SELECT sum(refused) AS refused
FROM (
  SELECT argMax(m.Value, m.TimeUnix) AS refused
  FROM {GAUGES} AS m
  WHERE {metrics("capture.refused_layers")}
  GROUP BY {WORKER}
)
HAVING count() > 0"""


def report_age() -> str:
    """Return how many seconds ago anything was last written, seen from the end of the range."""
    return f"""SELECT greatest(0, dateDiff('second', max(m.TimeUnix), least(now(), $__toTime))) AS age
FROM {GAUGES} AS m
WHERE {metrics("capture.up", "exporter.up")}
HAVING count() > 0"""


def rows_over_time() -> str:
    """Return query rows in each interval, by what became of them."""
    return _increase_over_time(("capture.rows",), f"m.Attributes['{ATTR_STATE}']", "fate", "rows")


def frames_lost_over_time() -> str:
    """Return frames lost in each interval, by where."""
    return _increase_over_time(("capture.dropped", "ingest.missing", "ingest.rejected"), "m.MetricName", "where", "frames")


def _increase_over_time(names: tuple[str, ...], label: str, label_name: str, value_name: str) -> str:
    """Return by how much cumulative counters grew in each interval.

    A counter that began inside the range counts from zero; of one that began before it, the first value seen is the
    starting point.  A restart has another start time, and so is another series.
    """
    return f"""SELECT
  time,
  {label_name},
  sum(if(previous < 0, if(started >= $__fromTime, total, 0), greatest(total - previous, 0))) AS {value_name}
FROM (
  SELECT
    time,
    {label_name},
    started,
    total,
    lagInFrame(total, 1, -1) OVER (
      PARTITION BY series ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS previous
  FROM (
    SELECT
      $__timeInterval(m.TimeUnix) AS time,
      toString({label}) AS {label_name},
      m.StartTimeUnix AS started,
      {SERIES} AS series,
      max(m.Value) AS total
    FROM {SUMS} AS m
    WHERE {metrics(*names)}
    GROUP BY time, {label_name}, started, series
  )
)
GROUP BY time, {label_name}
ORDER BY time, {label_name}"""


def errors_by_reason() -> str:
    """Return the errors of the range by reason, and their total: a row that is there also when all is well."""
    return f"""WITH growth AS (
  SELECT
    m.Attributes['{ATTR_REASON}'] AS reason,
    if(any(m.StartTimeUnix) >= $__fromTime, max(m.Value), max(m.Value) - min(m.Value)) AS errors
  FROM {SUMS} AS m
  WHERE {metrics("capture.errors", "ingest.rejected")}
  GROUP BY reason, {SERIES}
)
SELECT reason, errors
FROM (
  SELECT 'total' AS reason, sum(g.errors) AS errors, 0 AS place FROM growth AS g
  UNION ALL
  SELECT toString(g.reason) AS reason, sum(g.errors) AS errors, 1 AS place FROM growth AS g GROUP BY g.reason
)
ORDER BY place, errors DESC"""


def overhead_over_time() -> str:
    """Return capture's share of the time of all engine steps, for each worker."""
    return f"""SELECT
  $__timeInterval(m.TimeUnix) AS time,
  {WORKER} AS worker,
  avg(m.Value) AS overhead
FROM {GAUGES} AS m
WHERE {metrics("capture.overhead")}
GROUP BY time, worker
ORDER BY time, worker"""


def _gauge_over_time(name: str, label: str, shown: str, value: str) -> str:
    return f"""SELECT
  $__timeInterval(m.TimeUnix) AS time,
  {label} AS {shown},
  max(m.Value) AS {value}
FROM {GAUGES} AS m
WHERE {metrics(name)}
GROUP BY time, {shown}
ORDER BY time, {shown}"""


def strides() -> str:
    """Return of how many wanted rows the budget keeps one, for each worker."""
    return _gauge_over_time("capture.stride", WORKER, "worker", "stride")


def thinning() -> str:
    """Return of how many requests ingest keeps one, for each sidecar."""
    return _gauge_over_time("ingest.thinning", "toString(m.ResourceAttributes['service.instance.id'])", "sidecar", "thinning")


def spool_over_time() -> str:
    """Return the share of its room that the spool takes, for each sidecar."""
    used, limit = metric("spool.bytes").name, metric("spool.limit").name
    return f"""SELECT
  $__timeInterval(m.TimeUnix) AS time,
  toString(m.ResourceAttributes['service.instance.id']) AS sidecar,
  maxIf(m.Value, m.MetricName = '{used}') / maxIf(m.Value, m.MetricName = '{limit}') AS full
FROM {GAUGES} AS m
WHERE {metrics("spool.bytes", "spool.limit")}
GROUP BY time, sidecar
ORDER BY time, sidecar"""


def spool_now() -> str:
    """Return what waits in all spools, and for how long at most; no row where none reported."""
    def last(name: str) -> str:
        return f"argMaxIf(m.Value, m.TimeUnix, m.MetricName = '{metric(name).name}')"

    return f"""SELECT sum(waiting) AS `deliveries waiting`, max(age) AS `oldest waits`
FROM (
  SELECT {last("spool.records")} AS waiting, {last("spool.age")} AS age
  FROM {GAUGES} AS m
  WHERE {metrics("spool.records", "spool.age")}
  GROUP BY m.ResourceAttributes['service.instance.id']
)
HAVING count() > 0"""


def exporter_queue_over_time() -> str:
    """Return how many batches waited for each exporter, the most in each interval."""
    return f"""SELECT
  $__timeInterval(m.TimeUnix) AS time,
  toString(m.Attributes['{ATTR_EXPORTER}']) AS exporter,
  max(m.Value) AS queued
FROM {GAUGES} AS m
WHERE {metrics("exporter.queue")}
GROUP BY time, exporter
ORDER BY time, exporter"""


def exporters() -> str:
    """Return what each exporter last said of itself."""
    def last(name: str) -> str:
        return f"argMaxIf(m.Value, m.TimeUnix, m.MetricName = '{metric(name).name}')"

    return f"""SELECT
  toString(m.Attributes['{ATTR_EXPORTER}']) AS exporter,
  {last("exporter.up")} AS up,
  {last("exporter.queue")} AS queue,
  {last("exporter.duration")} AS duration
FROM {GAUGES} AS m
WHERE {metrics("exporter.up", "exporter.queue", "exporter.duration")}
GROUP BY exporter
ORDER BY exporter"""
