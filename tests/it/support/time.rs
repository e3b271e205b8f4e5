//! Times: where a clock of a test stands, and how times are shown.

use serde_json::Value;

/// Where a clock that a test moves stands at first, in Unix milliseconds.
pub const WALL_MS: i64 = 1_795_305_600_000;

/// The same, in milliseconds since the boot.
pub const BOOT_MS: i64 = 1_000_000;

/// Now, in Unix milliseconds.
pub fn unix_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// RFC 3339, UTC, with milliseconds.
#[track_caller]
pub fn assert_time(time: &Value) {
    let text = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}
