#!/usr/bin/python3
"""A small shop: pages behind a cache on disk, and a log that is opened anew after SIGHUP."""

import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CACHE = Path("/srv/shop/cache/pages")
LOG = Path("/srv/shop/log/access.log")
PID_FILE = Path("/run/shop/shop.pid")


class Shop(BaseHTTPRequestHandler):
    log = -1

    @classmethod
    def open_log(cls, *_signal):
        before, cls.log = cls.log, os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        if before >= 0:
            os.close(before)

    def do_GET(self):
        body = b"ok" if self.path == "/health" else self.page()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def page(self):
        kept = CACHE / (self.path.strip("/").replace("/", "-") + ".html")
        if not kept.exists():
            kept.write_bytes(b"<h1>" + self.path.encode() + b"</h1>" * 1000)
        return kept.read_bytes()

    def log_message(self, format, *arguments):
        os.write(self.log, f"{self.log_date_time_string()} INFO {format % arguments}\n".encode())


if __name__ == "__main__":
    Shop.open_log()
    signal.signal(signal.SIGHUP, Shop.open_log)
    PID_FILE.write_text(f"{os.getpid()}\n")
    ThreadingHTTPServer(("127.0.0.1", 8080), Shop).serve_forever()
