"""Name the suite's plugins, one per concern; have the suite outlive its terminal under nohup, not what it starts."""

import os
import signal

# Ignored, as under nohup, the signal would be ignored by every program under test too; a handler is not inherited. The
# variable tells the suite's own workers.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN or "SUITE_UNDER_NOHUP" in os.environ:
    os.environ["SUITE_UNDER_NOHUP"] = "1"
    signal.signal(signal.SIGHUP, lambda *_: None)

pytest_plugins = (
    "fixtures.servers",
    "fixtures.databases",
    "fixtures.sidecars",
    "fixtures.backfilling",
    "fixtures.contract",
    "fixtures.pgbouncer",
    "fixtures.clock",
    "fixtures.reliability",
    "fixtures.embedding_service",
    "fixtures.as_root",
    "fixtures.embedded_folder",
)
