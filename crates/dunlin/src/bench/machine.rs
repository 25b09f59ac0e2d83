//! What the system tells of the processor and of this process.

use std::fs;

/// The processor's name as Linux tells it; `None` elsewhere, and where it tells none.
#[must_use]
pub fn processor_name() -> Option<String> {
    field(&fs::read_to_string("/proc/cpuinfo").ok()?, "model name")
}

/// The most memory that this process has held so far, in bytes (`VmHWM`, pages of files included); `None` where the system is
/// not Linux.
#[must_use]
pub fn peak_resident_bytes() -> Option<u64> {
    let peak = field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM")?;
    let kib: u64 = peak.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 1\nmodel name\t: AMD EPYC: a name\nVmHWM:\t   1234 kB\nempty :\n";
        assert_eq!(
            field(text, "model name").as_deref(),
            Some("AMD EPYC: a name")
        );
        assert_eq!(field(text, "VmHWM").as_deref(), Some("1234 kB"));
        assert_eq!(field(text, "empty"), None);
        assert_eq!(field(text, "flags"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_some_memory() {
        assert!(peak_resident_bytes().is_some_and(|bytes| bytes > 100_000));
    }
}
