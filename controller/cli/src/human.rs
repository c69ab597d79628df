//! Numbers as people read them, and as they write them.

use std::time::Duration;

use indicatif::{DecimalBytes, HumanDuration};
use jiff::Timestamp;
use parse_size::Config;

/// `68.16 MB`
pub(crate) fn size(bytes: u64) -> String {
    DecimalBytes(bytes).to_string()
}

/// `118.00 MB/s`
pub(crate) fn rate(bytes_per_s: f64) -> String {
    format!("{}/s", DecimalBytes(bytes_per_s.max(0.0).round() as u64))
}

/// `210 ms`, `1.90 s`, `2 min 3 s`
pub(crate) fn duration(ms: f64) -> String {
    let ms = ms.max(0.0);
    match ms {
        ..999.5 => format!("{ms:.0} ms"),
        ..59_995.0 => format!("{:.2} s", ms / 1000.0),
        _ => {
            let seconds = (ms / 1000.0).round() as u64;
            format!("{} min {} s", seconds / 60, seconds % 60)
        }
    }
}

/// How long ago `then` was: `3 minutes`. A clock that runs behind gives `0 seconds`.
pub(crate) fn age(then: Timestamp) -> String {
    let age = Timestamp::now().duration_since(then);
    HumanDuration(Duration::try_from(age).unwrap_or_default()).to_string()
}

/// Reads a size of memory: `512m` is 512 · 1024², as podman has it.
pub(crate) fn parse_memory(text: &str) -> Result<u64, String> {
    positive(Config::new().with_binary().parse_size(text), "512m or 2g")
}

/// Reads a rate: `10MB` is 10 · 1000² bytes a second; `10MiB` and `10MB/s` work too.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    positive(Config::new().with_decimal().parse_size(text.trim_end_matches("/s")), "10MB")
}

fn positive(parsed: Result<u64, parse_size::Error>, example: &str) -> Result<u64, String> {
    match parsed {
        Ok(0) => Err(format!("it must be more than 0, for instance {example}")),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(format!("{error}; write it like {example}")),
    }
}

/// Reads a number of processors, `0.5`, into billionths.
pub(crate) fn parse_cpus(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(cpus) if cpus > 0.0 && cpus <= 65_536.0 => Ok((cpus * 1e9).round() as u64),
        _ => Err("write it like 0.5 or 2".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_unit_that_fits() {
        let words = [0.4, 210.0, 999.6, 1900.0, 59_994.0, 123_400.0].map(duration);
        assert_eq!(words, ["0 ms", "210 ms", "1.00 s", "1.90 s", "59.99 s", "2 min 3 s"]);
    }

    #[test]
    fn memory_counts_in_1024_and_rates_in_1000() {
        assert_eq!(parse_memory("64m"), Ok(64 << 20));
        assert_eq!(parse_memory("1.5GB"), Ok(3 << 29));
        assert_eq!(parse_rate("10MB"), Ok(10_000_000));
        assert_eq!(parse_rate("10MB/s"), Ok(10_000_000));
        assert_eq!(parse_rate("1MiB"), Ok(1 << 20));
    }

    #[test]
    fn limits_of_nothing_are_refused() {
        assert!(parse_memory("0").is_err());
        assert!(parse_rate("fast").is_err());
        assert!(parse_cpus("0").is_err());
        assert!(parse_cpus("NaN").is_err());
        assert_eq!(parse_cpus("0.5"), Ok(500_000_000));
    }

    #[test]
    fn an_age_in_the_future_is_none() {
        assert_eq!(age(Timestamp::MAX), "0 seconds");
    }
}
