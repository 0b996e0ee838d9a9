"""Leave in /srv/shop what a month of work leaves there."""

import os
import shutil
import time
from pathlib import Path

SHOP = Path("/srv/shop")
DAY = 86400


def write(path, content, age_days=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    moment = time.time() - age_days * DAY
    os.utime(path, (moment, moment))


for number in range(40):
    write(SHOP / "uploads/tmp" / f"day{number % 4}" / f"{number:03}.part", b"x" * 4096, age_days=number % 4 + 0.5)
for number in range(12):
    write(SHOP / "exports" / f"orders-{number:02}.csv", b"order;amount\n" * 200, age_days=12 - number)
for number in range(100):
    write(SHOP / "cache/pages" / f"page-{number}.html", b"<p>" + b"x" * 40000)
write(SHOP / "log/access.log", b"2026-01-01 00:00:00 INFO GET / 200\n" * 60000)

for path in SHOP.rglob("*"):
    shutil.chown(path, "shop", "shop")
(SHOP / ".worn").touch()
