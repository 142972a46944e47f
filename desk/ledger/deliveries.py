"""What channels still owe of the outbox, and what they did: one row per alert, channel and attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, func, select, text

from desk.ledger.alerts import UNKNOWN_ACCOUNT, alerts_numbered
from desk.ledger.records import Alert, Severity
from desk.ledger.tables import alert_acknowledgements, alert_deliveries, alerts
from desk.paging import Fingerprint, Heap, Line, Paged

__all__ = [
    "WANTED_FOR",
    "Told",
    "database_now",
    "heaps",
    "line_of",
    "paged_since",
    "record_delivery",
    "told",
    "undelivered",
]

# Older ones stay in the list of open alerts, but a channel that is new, or was off for days, does not page them all.
WANTED_FOR = timedelta(days=3)

_a, _d = alerts.c, alert_deliveries.c

_HEAPS = text(
    """
    SELECT account, kind, stage, symbol, session, severity, array_agg(alert_id ORDER BY alert_id) AS ids,
           min(recorded_at) AS oldest_at, sum(failed)::int AS failed, max(tried_at) AS tried_at,
           sum(failed_before)::int AS failed_before
    FROM (
        SELECT a.*,
            (SELECT count(*) FROM alert_deliveries d
             WHERE d.alert_id = a.alert_id AND d.channel = :channel AND NOT d.delivered) AS failed,
            (SELECT max(d.tried_at) FROM alert_deliveries d
             WHERE d.alert_id = a.alert_id AND d.channel = :channel) AS tried_at,
            (SELECT count(*) FROM alert_deliveries d
             WHERE d.alert_id = a.alert_id AND d.channel = :before AND NOT d.delivered) AS failed_before
        FROM alerts a
        WHERE a.account IN (:account, :unknown) AND a.recorded_at > clock_timestamp() - CAST(:wanted AS interval)
          AND NOT EXISTS (SELECT FROM alert_deliveries d
                          WHERE d.alert_id = a.alert_id AND d.channel = :channel AND d.delivered)
          AND NOT EXISTS (SELECT FROM alert_acknowledgements k WHERE k.alert_id = a.alert_id)
          AND (a.severity = 'critical'
               OR NOT EXISTS (SELECT FROM alert_deliveries d
                              WHERE d.alert_id = a.alert_id AND d.channel = ANY(:chain) AND d.delivered))
    ) AS waiting
    GROUP BY account, kind, stage, symbol, session, severity
    """
)

_RECORD = text(
    """
    INSERT INTO alert_deliveries (alert_id, channel, attempt, delivered, error, together, tried_at)
    SELECT id, :channel,
           1 + (SELECT coalesce(max(attempt), 0) FROM alert_deliveries WHERE alert_id = id AND channel = :channel),
           :delivered, CAST(:error AS text), :together, coalesce(CAST(:at AS timestamptz), clock_timestamp())
    FROM unnest(CAST(:ids AS bigint[])) AS id
    """
)


@dataclass(frozen=True, slots=True)
class Told:
    """An alert, and who has heard of it."""

    alert: Alert
    delivered_by: tuple[str, ...]  # channels
    failed: int  # attempts that did not get through
    acknowledged_by: str | None
    acknowledged_at: datetime | None


def undelivered(connection: Connection, *, account: str, channel: str, limit: int = 500) -> list[Alert]:
    """Alerts this channel has not delivered yet, oldest first, at most `limit`."""
    delivered = select(_d.alert_id).where(_d.alert_id == _a.alert_id, _d.channel == channel, _d.delivered).exists()
    ids = connection.execute(
        select(_a.alert_id)
        .where(
            _a.account.in_((account, UNKNOWN_ACCOUNT)),
            _a.recorded_at > func.clock_timestamp() - WANTED_FOR,
            ~delivered,
        )
        .order_by(_a.alert_id)
        .limit(limit)
    ).scalars()
    return alerts_numbered(connection, list(ids))


def heaps(connection: Connection, *, account: str, channel: str, chain: Sequence[str]) -> list[Heap]:
    """The same by fingerprint and severity, for a channel that pages.

    `chain`: all channels that page, first choice first. What is not critical is delivered once one of them has it;
    what is acknowledged need not be.
    """
    place = list(chain).index(channel)
    rows = connection.execute(
        _HEAPS,
        {
            "account": account,
            "unknown": UNKNOWN_ACCOUNT,
            "channel": channel,
            "before": chain[place - 1] if place else "",
            "chain": list(chain),
            "wanted": WANTED_FOR,
        },
    )
    return [
        Heap(
            fingerprint=Fingerprint(row.account, row.kind, row.stage, row.symbol, row.session),
            severity=Severity(row.severity),
            ids=tuple(row.ids),
            oldest_at=row.oldest_at,
            failed=row.failed,
            tried_at=row.tried_at,
            failed_before=row.failed_before,
        )
        for row in rows
    ]


def paged_since(connection: Connection, *, channel: str, since: datetime) -> Paged:
    """What this channel has delivered since then: the newest time of each fingerprint and severity."""
    keys = (_a.account, _a.kind, _a.stage, _a.symbol, _a.session, _a.severity)
    rows = connection.execute(
        select(*keys, func.max(_d.tried_at).label("at"))
        .join(alerts, _a.alert_id == _d.alert_id)
        .where(_d.channel == channel, _d.delivered, _d.tried_at > since)
        .group_by(*keys)
    )
    found: dict[Fingerprint, dict[Severity, datetime]] = {}
    for row in rows:
        fingerprint = Fingerprint(row.account, row.kind, row.stage, row.symbol, row.session)
        found.setdefault(fingerprint, {})[Severity(row.severity)] = row.at
    return found


def line_of(connection: Connection, channel: str) -> Line:
    """How often the channel has failed since it last got something through."""
    success = select(func.max(_d.tried_at)).where(_d.channel == channel, _d.delivered).scalar_subquery()
    row = connection.execute(
        select(func.count().label("failures"), func.max(_d.tried_at).label("tried_at"))
        .select_from(alert_deliveries)
        .where(
            _d.channel == channel,
            ~_d.delivered,
            _d.tried_at > func.coalesce(success, func.clock_timestamp() - WANTED_FOR),
        )
    ).one()
    return Line(row.failures, row.tried_at)


def record_delivery(
    connection: Connection,
    *,
    ids: Sequence[int],
    channel: str,
    delivered: bool,
    error: str | None = None,
    together: int | None = None,
    at: datetime | None = None,
) -> None:
    """One attempt at one channel to deliver these alerts in one message; a failed one has an error.

    `at`: when it was made, by the caller's clock; by default the database's.
    """
    values = {"ids": list(ids), "channel": channel, "delivered": delivered, "error": error, "at": at}
    connection.execute(_RECORD, {**values, "together": together or len(ids)})


def told(
    connection: Connection, *, account: str, session: date | None = None, is_open: bool = False, limit: int = 100
) -> list[Told]:
    """The newest alerts with what became of them; of one session, or only those nobody has acknowledged."""
    acks = alert_acknowledgements.c
    query = (
        select(_a.alert_id, acks.acknowledged_by, acks.recorded_at)
        .outerjoin(alert_acknowledgements, acks.alert_id == _a.alert_id)
        .where(_a.account.in_((account, UNKNOWN_ACCOUNT)))
    )
    if session is not None:
        query = query.where(_a.session == session)
    if is_open:
        query = query.where(acks.alert_id.is_(None))
    seen = {row.alert_id: row for row in connection.execute(query.order_by(_a.alert_id.desc()).limit(limit))}
    tries: dict[int, list[tuple[str, bool]]] = {}
    rows = connection.execute(
        select(_d.alert_id, _d.channel, _d.delivered).where(_d.alert_id.in_(seen)).order_by(_d.channel)
    )
    for row in rows:
        tries.setdefault(row.alert_id, []).append((row.channel, row.delivered))
    return [
        Told(
            alert=alert,
            delivered_by=tuple(name for name, done in tries.get(alert.alert_id, ()) if done),
            failed=sum(not done for _, done in tries.get(alert.alert_id, ())),
            acknowledged_by=seen[alert.alert_id].acknowledged_by,
            acknowledged_at=seen[alert.alert_id].recorded_at,
        )
        for alert in reversed(alerts_numbered(connection, list(seen)))
    ]


def database_now(connection: Connection) -> datetime:
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now
