"""Settings that a client may bring, in the URL, in a session or at the end of a query, and what holds whatever he brings.

Limits can be lowered and never raised or taken away (0 is "no limit").  Of the rest only what shapes the answer is taken:
formats (but nothing that names a file, a schema or an address), time zone, NULLs, paging.  Anything else is refused as a
server refuses it in readonly mode.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.http.names import names
from headwatch_exporters.clickhouse.http.refusal import QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.config import ClickHouseConfig

_SHAPES = names("""
    aggregate_functions_null_for_empty bool_false_representation bool_true_representation cast_keep_nullable
    date_time_output_format extremes format_csv_delimiter format_csv_null_representation format_custom_escaping_rule
    format_custom_field_delimiter format_custom_result_after_delimiter format_custom_result_before_delimiter
    format_custom_row_after_delimiter format_custom_row_before_delimiter format_custom_row_between_delimiter
    format_tsv_null_representation group_by_use_nulls join_use_nulls limit offset prefer_column_name_to_alias session_timezone
    totals_mode transform_null_in
""")
_OUTPUT = re.compile(r"output_format_[a-z0-9_]+")
_NEVER = re.compile(r"schema|path|file|registry|confluent|streaming|parallel|_image_")
_IGNORED = names("""
    async_insert cancel_http_readonly_queries_on_client_close date_time_input_format http_write_exception_in_output_format
    http_headers_progress_interval_ms http_native_compression_disable_checksumming_on_decompress http_zlib_compression_level
    insert_deduplicate log_comment log_queries priority wait_for_async_insert
""")
"""Drivers send them with every request, and here they change nothing."""
_FROM_DEADLINES = "max_execution_time"
"""Drivers (clickhouse-go, and so Grafana) make it from their own deadline, which asks for nothing: it is cut, not refused."""
_NUMBER = re.compile(r"([0-9]{1,20})(\.[0-9]{1,9})?")

_ALWAYS = {
    "allow_ddl": "0",
    "allow_introspection_functions": "0",
    "enable_analyzer": "1",
    "max_ast_depth": "500",
    "max_ast_elements": "50000",
    "max_expanded_ast_elements": "200000",
    "max_subquery_depth": "50",
    "output_format_parallel_formatting": "0",  # it holds blocks for each thread: 60 MiB more a query, and not faster
    "read_overflow_mode": "throw",
    "result_overflow_mode": "throw",
    "timeout_overflow_mode": "throw",
    # nothing is spilled: a query that needs more memory than it may have fails, and the disk belongs to the store
    "max_bytes_ratio_before_external_distinct": "0",
    "max_bytes_ratio_before_external_group_by": "0",
    "max_bytes_ratio_before_external_join": "0",
    "max_bytes_ratio_before_external_sort": "0",
}
_UNDER_POLICY = {"optimize_move_to_prewhere": "0", "query_plan_merge_filters": "0", "query_plan_optimize_prewhere": "0"}
"""So that no condition of the client's is evaluated before the policy: its errors would tell of hidden rows."""


def limits(config: ClickHouseConfig) -> dict[str, float]:
    """Return the limits of every query by the name of their setting; 0: none."""
    return {
        "max_execution_time": config.max_execution_seconds,
        "max_result_rows": config.max_result_rows,
        "max_result_bytes": config.max_result_bytes,
        "max_rows_to_read": config.max_read_rows,
        "max_bytes_to_read": config.max_read_bytes,
        "max_memory_usage": config.max_memory_bytes,
        "max_threads": config.max_threads,
        "max_block_size": 65_409,
    }


def check_settings(given: Mapping[str, str], ceilings: Mapping[str, float]) -> dict[str, str]:
    """Return of *given* what is in force: nothing where the client need not have brought it.

    Raises:
        QueryError: One is not to be changed, or would loosen a limit.
    """
    taken = {}
    for name, value in given.items():
        if name in ceilings:
            taken[name] = _lowered(name, value, ceilings[name])
        elif name in _SHAPES or (_OUTPUT.fullmatch(name) and not _NEVER.search(name)):
            taken[name] = value
        elif name not in _IGNORED and not (name == "readonly" and value in {"1", "2"}):
            raise QueryError("READONLY", f"Cannot modify '{name[:256]}' setting in readonly mode.")
    return taken


def in_force(taken: Mapping[str, str], ceilings: Mapping[str, float], mark: str, filters: str = "") -> dict[str, str]:
    """Return every setting of a query: what was *taken*, and over it what always holds; *filters* is the row policy."""
    held = {name: f"{ceiling:g}" if ceiling % 1 else str(int(ceiling)) for name, ceiling in ceilings.items()}
    policy = {**_UNDER_POLICY, "additional_table_filters": filters} if filters else {}
    return {**held, **taken, **_ALWAYS, **policy, "log_comment": mark}


def _lowered(name: str, value: str, ceiling: float) -> str:
    found = _NUMBER.fullmatch(value)
    if found is None:
        raise QueryError("CANNOT_PARSE_TEXT", f"Cannot parse setting {name}: {value[:64]!r} is no number")
    if found[2] and name != _FROM_DEADLINES:
        raise QueryError("CANNOT_PARSE_TEXT", f"Cannot parse setting {name}: {value[:64]!r} is no whole number")
    number = float(value)
    if name == _FROM_DEADLINES and number > ceiling:
        return f"{ceiling:.15g}"
    if ceiling and not 0 < number <= ceiling:
        raise QueryError(
            "SETTING_CONSTRAINT_VIOLATION", f"Setting {name} shouldn't be greater than {ceiling:.15g}, or 0"
        )
    return value
