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
    own_memory("VmHWM")
}

/// The memory that this process holds at present, in bytes (`VmRSS`, pages of files included); `None` where the system is not
/// Linux.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    own_memory("VmRSS")
}

fn own_memory(name: &str) -> Option<u64> {
    kib(&field(
        &fs::read_to_string("/proc/self/status").ok()?,
        name,
    )?)
}

/// The memory of this machine and what programs can have of it without swapping, in bytes (`MemTotal` and `MemAvailable`);
/// `None` where the system is not Linux. Limits of a container are not seen.
pub(crate) fn machine_memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name| kib(&field(&text, name)?);
    Some((bytes("MemTotal")?, bytes("MemAvailable")?))
}

/// Bytes of an amount that the kernel writes in kB, which are 1024 bytes.
fn kib(text: &str) -> Option<u64> {
    let kib: u64 = text.strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
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
        let resident = resident_bytes().unwrap();
        assert!(resident > 100_000 && peak_resident_bytes().unwrap() >= resident);
        let (total, available) = machine_memory().unwrap();
        assert!(resident < total && available < total);
    }
}
