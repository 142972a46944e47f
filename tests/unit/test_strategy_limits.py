"""A strategy file with limits that contradict each other, or that nobody knows, is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from desk.errors import BadInput
from desk.strategy import Controls, Strategy, load_strategy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[controls]\nloss_day_reducing_pct = 5", "loss_day_reducing_pct 5 is not below loss_day_halted_pct 4"),
        ("[controls]\nslippage_alert_pct = 3", "slippage_alert_pct 3 is not below slippage_reducing_pct 3"),
        (
            "[controls]\nmessages_minute_symbol_max = 61",
            "messages_minute_symbol_max 61 is above messages_minute_max 60",
        ),
        ("[controls]\nentries_symbol_day_max = 41", "entries_symbol_day_max 41 is above orders_day_max 40"),
        (
            '[controls]\norder_value_max_fraction = "0.2"',
            "order_value_max_fraction 0.2 is above symbol_exposure_max_fraction 0.10",
        ),
        (
            '[controls]\nsymbol_exposure_max_fraction = "0.9"\ngross_exposure_max_fraction = "0.5"',
            "symbol_exposure_max_fraction 0.9 is above gross_exposure_max_fraction 0.5",
        ),
        (
            'entry_limit_pct = "1.5"\n[controls]\nslippage_alert_pct = "0.5"\nslippage_reducing_pct = "1.5"',
            "entry_limit_pct 1.5 is not below controls.slippage_reducing_pct 1.5",
        ),
        ("[controls]\nmessages_minute_max = 200", "controls.messages_minute_max"),
        ("[controls]\nmax_orders = 3", "controls.max_orders: Extra inputs are not permitted, found 3"),
        ("[controls]\nrejects_max = 0", "controls.rejects_max"),
    ],
)
def test_a_mistaken_limit_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "strategy.toml"
    file.write_text(text)

    with pytest.raises(BadInput) as refused:
        load_strategy(file)

    assert said in str(refused.value)
    assert str(refused.value).startswith(f"strategy {file}: ") and "\n" not in str(refused.value)


def test_the_defaults_are_those_of_the_design() -> None:
    limits = Controls()

    assert (limits.turnover_day_max_fraction, limits.gross_exposure_max_fraction) == (1.5, 1)
    assert (limits.messages_minute_max, limits.messages_minute_symbol_max) == (60, 5)
    assert (limits.entries_symbol_day_max, limits.orders_day_max) == (3, 40)
    assert (limits.rejects_max, limits.rejects_window_minutes, limits.data_age_max_minutes) == (5, 10, 15)
    assert (limits.loss_day_reducing_pct, limits.loss_day_halted_pct, limits.drawdown_halted_pct) == (2, 4, 10)
    assert (limits.slippage_alert_pct, limits.slippage_reducing_pct) == (1, 3)


def test_a_strategy_recorded_before_a_limit_existed_reads_with_its_default() -> None:
    document = Strategy().document
    controls = dict(document["controls"])  # type: ignore[call-overload]  # a table of the document
    del controls["rejects_max"]

    assert Strategy.model_validate(document | {"controls": controls}) == Strategy()
