"""What is listed at the simulated exchange, with the changes someone made through the admin API."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import orjson

from desk.exchange.market import Listing

__all__ = ["AssetBook", "SimAsset"]

_NAMESPACE = uuid.UUID("6f6e6570-6174-6820-6173-736574730000")


@dataclass(frozen=True, slots=True)
class SimAsset:
    symbol: str
    asset_id: str
    name: str
    exchange: str
    status: str = "active"
    tradable: bool = True
    fractionable: bool = True
    shortable: bool = True

    @property
    def document(self) -> dict[str, Any]:
        return {
            "id": self.asset_id,
            "class": "us_equity",
            "exchange": self.exchange,
            "symbol": self.symbol,
            "name": self.name,
            "status": self.status,
            "tradable": self.tradable,
            "marginable": True,
            "maintenance_margin_requirement": 30,
            "shortable": self.shortable,
            "easy_to_borrow": self.shortable,
            "borrow_status": "easy_to_borrow" if self.shortable else "hard_to_borrow",
            "fractionable": self.fractionable,
            "min_order_size": None,
            "min_trade_increment": None,
            "price_increment": None,
            "attributes": [],
        }


class AssetBook:
    """A symbol not yet listed on a day does not exist on it; a delisted one is inactive."""

    def __init__(self, listings: Iterable[Listing]) -> None:
        self._listings = {listing.symbol: listing for listing in listings}
        self._changed: dict[str, SimAsset] = {}
        self._symbol_of = {listing.asset_id: listing.symbol for listing in self._listings.values()}
        self._rendered: dict[tuple[date, str | None], bytes] = {}

    def restart(self) -> None:
        """Forget the admin's changes."""
        self._changed.clear()
        self._rendered.clear()

    def find(self, symbol_or_id: str, day: date) -> SimAsset | None:
        symbol = self._symbol_of.get(symbol_or_id, symbol_or_id)
        changed = self._changed.get(symbol)
        if changed is not None:
            return changed
        listing = self._listings.get(symbol)
        if listing is None or listing.listed > day:
            return None
        gone = listing.delisted is not None and day >= listing.delisted
        return SimAsset(
            symbol=symbol,
            asset_id=listing.asset_id,
            name=listing.name,
            exchange=listing.exchange,
            status="inactive" if gone else "active",
            tradable=not gone,
        )

    def change(self, symbol: str, day: date, **fields: Any) -> SimAsset:
        """Add an asset, or change fields of one."""
        found = self.find(symbol, day)
        if found is None:
            made = str(uuid.uuid5(_NAMESPACE, symbol))
            found = SimAsset(symbol, made, f"{symbol} (added by the admin)", "NASDAQ")
        changed = replace(found, **fields)
        self._changed[symbol] = changed
        self._symbol_of[changed.asset_id] = symbol
        self._rendered.clear()
        return changed

    def listed_json(self, day: date, status: str | None) -> bytes:
        """All assets of that day and status as a JSON array, by symbol."""
        key = (day, status)
        if key not in self._rendered:
            self._rendered.clear()
            symbols = sorted(self._listings.keys() | self._changed.keys())
            assets = [asset for symbol in symbols if (asset := self.find(symbol, day)) is not None]
            self._rendered[key] = orjson.dumps(
                [asset.document for asset in assets if status is None or asset.status == status]
            )
        return self._rendered[key]
