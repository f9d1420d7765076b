"""Numbers and times as text."""


def number(value, digits: int = 4) -> str:
    """Format a number: 0.61234 -> `0.6123`, 12345.0 -> `12,345`, None -> `–`."""
    if not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def moment(text: str | None) -> str:
    """Shorten a time: `2026-01-02T03:04:05.678+00:00` -> `2026-01-02 03:04:05`."""
    return str(text)[:19].replace("T", " ") if text else "–"
