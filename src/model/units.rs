//! Durations and sizes as the file writes them: `"250ms"`, `"10s"`, `"5m"`, `"64KiB"`.
